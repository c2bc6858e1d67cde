"""A folded client of another method gets what it would get alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from recast_core import folded
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.folded import Chunking, FoldedClient, How, ImageStore, MethodFold
from recast_core.methods import MethodModel, parse_method, train
from recast_core.objectives import SplitRidge
from recast_core.recipe import Recipe

CLASSES, RATE = 4, 1e-3
RIDGE = SplitRidge(CLASSES)
SIZES = (2, 7, 17, 24)
CPU = torch.device("cpu")


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return CifarResNet(8, CLASSES)


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(8, 4, 3, 2, 16, 32, num_classes=CLASSES)
    nn.init.normal_(model.heads.head.weight)
    return model


CASES = {
    "norm-affine": resnet,
    "lora:2:layer?.0.conv*": resnet,
    "lora:1:attn": vit,
    "lora:1:mlp": vit,
    "lora-xs:2:layer?.0.conv*": resnet,
    "lora-xs:2:attn": vit,
    "vera:4:layer?.0.conv*": resnet,
    "tiny-lora:3:2:attn": vit,
    "tiny-lora:3:2:layer?.0.conv*": resnet,
    "norm-groups:2": resnet,
}


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(sum(SIZES)) % CLASSES
    images = torch.randn(len(labels), 3, 8, 8, generator=generator)
    return images + labels.view(-1, 1, 1, 1), labels


def shares(labels: Tensor) -> list[FoldedClient]:
    rows = torch.arange(len(labels)).split(list(SIZES))
    return [FoldedClient(part, labels[part], seed) for seed, part in enumerate(rows)]


def alone(model: MethodModel, start: Tensor, client: FoldedClient, images: Tensor) -> Tensor:
    model.load_vector(start)
    train(model, images[client.rows], client.labels, RIDGE, Recipe(2, 8, RATE), client.seed)
    return model.sent_vector()


@pytest.mark.parametrize("spec", CASES)
@pytest.mark.parametrize("size", [1, 3])
def test_a_folded_client_ends_where_it_ends_alone(spec: str, size: int) -> None:
    make: Callable[[], nn.Module] = CASES[spec]
    assert parse_method(spec).foldable
    model = parse_method(spec).prepare(make())
    images, labels = pictures()
    clients, start = shares(labels), model.sent_vector()
    store = ImageStore(images, lambda x: x, None, CPU)
    found = folded.train(
        MethodFold(model), store, clients, RIDGE, Recipe(2, 8, RATE), start, How(Chunking(size))
    )
    assert found.finite.all()
    for client, vector in zip(clients, found.coefficients, strict=True):
        expected = alone(model, start, client, images)
        moved = (expected - start).abs().max()
        # AdamW makes a full step of a gradient that is nothing but rounding: few elements may.
        close = (vector - expected).abs() <= 1e-5
        assert close.float().mean() > 0.99
        assert len(client.labels) <= 2 or moved > 1e-4


def test_a_client_that_diverges_spoils_no_other() -> None:
    model = parse_method("norm-affine").prepare(resnet())
    images, labels = pictures()
    clients, start = shares(labels), model.sent_vector()
    broken = images.clone()
    broken[clients[2].rows] = float("nan")

    def run(pictures: Tensor) -> Tensor:
        store = ImageStore(pictures, lambda x: x, None, CPU)
        found = folded.train(
            MethodFold(model), store, clients, RIDGE, Recipe(1, 8, RATE), start, How(Chunking(4))
        )
        return torch.where(found.finite[:, None], found.coefficients, torch.zeros(()))

    sound, spoiled = run(images), run(broken)
    assert not spoiled[2].any()
    assert torch.allclose(sound[[0, 1, 3]], spoiled[[0, 1, 3]], atol=1e-5)
