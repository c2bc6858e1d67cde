"""What the suffix leaves out changes no feature and no gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import VisionTransformer

from recast_core import RecastConfig, RecastModel, attach, mimic
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.folded import SplitModel, split_model

DEPTH = 3


def transformer(target: str) -> RecastModel:
    torch.manual_seed(0)
    model = VisionTransformer(8, 4, DEPTH, 2, 16, 32, num_classes=4)
    return attach(model, mimic(model, RecastConfig(target)))


def operations(model: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops()


def features_of_parts(split: SplitModel, images: Tensor) -> Tensor:
    assert split.prefix is not None
    features: Tensor = split.suffix(split.prefix(images))
    return features


@pytest.mark.parametrize("target", ["mlp", "attn", "attn+mlp"])
def test_features_and_gradients_are_those_of_the_whole_model(target: str) -> None:
    net = transformer(target)
    images = torch.randn(4, 3, 8, 8)
    weights = torch.randn(4, 16)
    found = []
    for features in (net.features(images), features_of_parts(split_model(net, 8), images)):
        (gradient,) = torch.autograd.grad((features * weights).sum(), net.coefficients.flat)
        found.append((features.detach(), gradient))
    (whole, whole_gradient), (lean, lean_gradient) = found
    torch.testing.assert_close(lean, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(lean_gradient, whole_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["mlp", "attn", "attn+mlp"])
def test_each_client_of_a_batch_meets_its_own_weights(target: str) -> None:
    net = transformer(target)
    split, images = split_model(net, 8), torch.randn(4, 3, 8, 8)
    start = net.coefficients.sent()
    vectors = torch.stack([start, start + 0.3 * torch.randn_like(start)])
    expected = []
    for vector, part in zip(vectors, images.split(2), strict=True):
        net.coefficients.load(vector)
        expected.append(net.features(part).detach())
    with torch.no_grad():
        net.coefficients.flat = nn.Parameter(net.coefficients.spread(vectors))
    found = features_of_parts(split, images).detach()
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-5, atol=1e-6)


def test_the_last_block_is_computed_for_the_class_token_alone() -> None:
    net = transformer("mlp")
    split = split_model(net, 8)
    assert split.prefix is not None
    images = torch.randn(2, 3, 8, 8)
    tokens, width, hidden = 5, 16, 32
    block = 2 * 2 * tokens * 2 * width * hidden  # images x tokens x two products of an MLP
    spared = operations(net.backbone, images) - operations(split.prefix, images)
    spared -= operations(split.suffix, split.prefix(images))
    assert spared >= block * (tokens - 1) // tokens


def test_a_model_whose_classifier_reads_all_tokens_keeps_them() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(12, 16), nn.Linear(16, 16)
            self.fc = nn.Linear(16, 4)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.last(self.first(images.flatten(1).unflatten(1, (16, 12))))
            return self.fc(tokens.mean(1))

    torch.manual_seed(0)
    model = Pooled()
    net = attach(model, mimic(model, RecastConfig(("last",), residual=True)))
    images = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(features_of_parts(split_model(net, 8), images), net.features(images))


def test_a_convolutional_suffix_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    model = CifarResNet(8, 4)
    net = attach(model, mimic(model, RecastConfig(("layer3.0.conv*",))))
    split = split_model(net, 8)
    assert isinstance(split.suffix, fx.GraphModule)
    names = [name for name, _ in split.suffix.named_modules()]
    assert not [name for name in names if "economised" in name]
