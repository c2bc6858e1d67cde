"""Fitting lowers the loss by coefficients alone, repeats bit for bit, refuses hopeless labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recast_core import RecastConfig, RecastError, RecastModel, attach, mimic
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.fitting import features_of, fit
from recast_core.recipe import Recipe


def learner(sets: int = 1) -> RecastModel:
    torch.manual_seed(0)
    model = CifarResNet(8, 4)
    # Statistics that are not those of a fresh layer, so that a drift would show.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return attach(model, mimic(model, RecastConfig(("layer?.0.conv*",), sets=sets)))


def toy(count: int = 96, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(classes, 3, 8, 8, generator=generator)
    labels = torch.arange(count) % classes
    return patterns[labels] + torch.randn(count, 3, 8, 8, generator=generator), labels


def test_an_earlier_tasks_head_is_kept_and_trained_through() -> None:
    images, labels = toy()
    day = fit(learner(), images, labels, 3, Recipe(4, 16, 2e-2))
    before = day.head.weight.clone()
    dark = 0.3 * images - 1.5
    net = learner()
    net.coefficients.load(day.coefficients)
    with torch.no_grad():
        deployed = (day.head(net.features(dark)).argmax(1) == labels).float().mean()
    night = fit(net, dark, labels, 3, Recipe(10, 16, 2e-2), head=day.head)
    assert night.head is day.head
    assert torch.equal(day.head.weight, before)
    with torch.no_grad():
        found = (night.head(net.features(dark)).argmax(1) == labels).float().mean()
    assert found > deployed
    with pytest.raises(RecastError, match="has 3 classes and the task 4"):
        fit(learner(), images, labels, 4, head=day.head)


def test_training_lowers_the_loss() -> None:
    images, labels = toy()
    first = fit(learner(), images, labels, 3, Recipe(1, 16, 1e-9))
    last = fit(learner(), images, labels, 3, Recipe(10, 16, 2e-2))
    assert last.loss < 0.6 * first.loss


@pytest.mark.parametrize("sets", [1, 2])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(sets: int) -> None:
    images, labels = toy()
    one, again, other = (
        fit(learner(sets), images, labels, 3, Recipe(1, 16), seed) for seed in (5, 5, 6)
    )
    assert torch.equal(one.coefficients, again.coefficients)
    assert torch.equal(one.head.weight, again.head.weight)
    assert one.loss == again.loss
    assert not torch.equal(one.coefficients, other.coefficients)


def test_nothing_but_the_coefficients_changes() -> None:
    net = learner()
    tensors = dict(net.named_parameters()) | dict(net.named_buffers())
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    assert any("running_mean" in name for name in before)
    assert any("templates" in name for name in before)
    images, labels = toy()
    net.train()
    kept = images.clone(), labels.clone()
    fit(net, images, labels, 3, Recipe(2, 16))
    changed = {name for name, tensor in tensors.items() if not torch.equal(tensor, before[name])}
    assert changed == {"coefficients.flat"}
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])


def test_the_result_is_what_the_model_holds_and_what_its_head_was_fitted_on() -> None:
    net = learner(sets=2)
    images, labels = toy()
    found = fit(net, images, labels, 3, Recipe(batch=16))
    assert torch.equal(found.coefficients, net.coefficients.sent())
    assert found.coefficients.shape == (net.bank.sent,)
    assert not torch.equal(found.coefficients, net.bank.initial_vector)
    predicted = found.head(features_of(net, images)).argmax(1)
    assert float((predicted == labels).float().mean()) > 0.8
    assert not any(p.requires_grad for p in found.head.parameters())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "no images"),
        ([1, 1, 1], "one class"),
        ([0, 1, 3], "labels from 0 to 3 for 3 classes"),
        ([-1, 1, 2], "labels from -1 to 2"),
    ],
)
def test_labels_that_teach_nothing_are_refused(labels: list[int], message: str) -> None:
    net = learner()
    with pytest.raises(RecastError, match=message):
        fit(net, torch.zeros(len(labels), 3, 8, 8), torch.tensor(labels, dtype=torch.int64), 3)
    assert torch.equal(net.coefficients.sent(), net.bank.initial_vector)


def test_training_that_diverges_is_refused() -> None:
    images, labels = toy()
    with pytest.raises(RecastError, match="lower the learning rate"):
        fit(learner(), images * 1e18, labels, 3, Recipe(3, 16, 1e30))


def test_two_images_of_two_classes_are_enough() -> None:
    images, _ = toy()
    found = fit(learner(), images[:2], torch.tensor([0, 2]), 3)
    assert bool(torch.isfinite(found.coefficients).all())


def test_features_do_not_depend_on_how_images_are_batched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, (images, _) = learner(), toy()
    whole = features_of(net, images)
    monkeypatch.setattr("recast_core.fitting.EVALUATION_BATCH", 7)
    torch.testing.assert_close(features_of(net, images), whole)


def test_weights_that_are_used_without_a_gradient_cannot_train() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
            self.out = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.relu(nn.functional.linear(x, layer.weight.data, layer.bias))
            return self.out(x)

    model = Detached().eval()
    net = attach(model, mimic(model, RecastConfig(("layers.*",))))
    with pytest.raises(RecastError, match=r"no coefficient reaches the loss.*\.data"):
        fit(net, torch.randn(12, 6), torch.arange(12) % 3, classes=3)


def test_a_model_whose_tensors_have_no_shape_yet_is_told_to_be_run_once() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.LazyLinear(6), nn.Linear(6, 3))
    config = RecastConfig(("0", "1"))
    with pytest.raises(RecastError, match=r"1\.weight has no shape yet"):
        mimic(model, config)
    model(torch.zeros(1, 6))
    assert mimic(model, config).sent
