"""An objective is one thing alone and folded, and the loops take any that follows the protocol."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recast_core import RecastConfig, RecastError, RecastModel, attach, mimic
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.descent import descend
from recast_core.folded import BankFold, Chunking, FoldedClient, How, ImageStore, split_model, train
from recast_core.methods import Lora
from recast_core.methods import train as train_alone
from recast_core.objectives import Batch, CrossEntropy, Objective, SplitRidge
from recast_core.objectives.base import whole_batch
from recast_core.recipe import Recipe

CLASSES, WIDTH = 5, 64
SIZES = (2, 7, 12, 21)
RECIPE = Recipe(2, 8, 1e-2)


class Centred(Objective):
    """Features near their mean, whatever the labels."""

    def losses(self, features: Tensor, batch: Batch) -> Tensor:
        real = batch.real.unsqueeze(-1)
        count = real.sum(1).clamp_min(1)
        x = torch.where(real, features, torch.zeros(()))
        spread = torch.where(real, x - (x.sum(1) / count).unsqueeze(1), torch.zeros(()))
        return spread.square().sum((1, 2)) / count[:, 0]


def kept_head() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(WIDTH, CLASSES)


OBJECTIVES = {
    "ridge": lambda: SplitRidge(CLASSES),
    "kept classifier": lambda: CrossEntropy(kept_head()),
    "no labels": Centred,
}


def net() -> RecastModel:
    torch.manual_seed(0)
    model = CifarResNet(8, CLASSES)
    return attach(model, mimic(model, RecastConfig(("layer?.0.conv*",))))


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, CLASSES, (sum(SIZES),), generator=generator)
    images = torch.randn(len(labels), 3, 8, 8, generator=generator)
    return images + labels.view(-1, 1, 1, 1), labels


def shares(labels: Tensor) -> list[FoldedClient]:
    rows = torch.arange(len(labels)).split(list(SIZES))
    return [FoldedClient(part, labels[part], seed) for seed, part in enumerate(rows)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_client_trained_with_others_ends_where_the_plain_loop_leaves_it(name: str) -> None:
    objective: Objective = OBJECTIVES[name]()
    model, (images, labels) = net(), pictures()
    split = split_model(model, 8)
    store = ImageStore(images, lambda x: x, split.prefix, torch.device("cpu"))
    clients = shares(labels)
    found = train(BankFold(split), store, clients, objective, RECIPE, how=How(Chunking(3)))
    for client, vector, loss in zip(clients, found.coefficients, found.losses, strict=True):
        model.coefficients.load()
        optimizer = torch.optim.AdamW(
            [model.coefficients.flat], RECIPE.learning_rate, weight_decay=0.0
        )
        own, classes = images[client.rows], client.labels
        expected = descend(model, optimizer, own, classes, objective, RECIPE, client.seed)
        # AdamW makes a full step of a gradient that is nothing but rounding: few elements may.
        close = (vector - model.coefficients.sent()).abs() <= 1e-5
        assert close.float().mean() > 0.9
        assert float(loss) == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert len(classes) <= 2 or not torch.equal(vector, model.bank.initial_vector)


@pytest.mark.parametrize("name", ["kept classifier", "no labels"])
def test_padding_changes_no_loss_and_gets_no_gradient(name: str) -> None:
    objective: Objective = OBJECTIVES[name]()
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2, 6, WIDTH, generator=generator)
    labels = torch.randint(0, CLASSES, (2, 6), generator=generator)
    real = torch.tensor([[True] * 6, [True, True, False, True, False, False]])
    alone = [
        objective.losses(x[keep][None], whole_batch(y[keep]))
        for x, y, keep in zip(features, labels, real, strict=True)
    ]
    features[~real] = float("nan")
    features.requires_grad_(True)
    together = objective.losses(features, Batch(labels, labels, real, CLASSES))
    torch.testing.assert_close(together, torch.cat(alone))
    (gradient,) = torch.autograd.grad(together.sum(), features)
    assert bool(torch.isfinite(gradient).all())
    assert not gradient[~real].any()


def test_a_classifier_trains_along_in_the_plain_loop_alone() -> None:
    torch.manual_seed(0)
    model = Lora(1, "layer?.0.conv*").prepare(CifarResNet(8, CLASSES))
    images, labels = pictures()
    head = kept_head()
    before = head.weight.detach().clone()
    train_alone(model, images, labels, CrossEntropy(head), RECIPE)
    assert torch.equal(head.weight, before)
    train_alone(model, images, labels, CrossEntropy(head, trains=True), RECIPE)
    assert not torch.equal(head.weight, before)
    assert not head.weight.requires_grad
    split = split_model(net(), 8)
    store = ImageStore(images, lambda x: x, split.prefix, torch.device("cpu"))
    with pytest.raises(ValueError, match="does not fold"):
        train(BankFold(split), store, shares(labels), CrossEntropy(head, trains=True), RECIPE)


def test_what_nothing_can_be_learned_from_is_a_matter_of_the_objective() -> None:
    one_class = torch.ones(3, dtype=torch.int64)
    with pytest.raises(RecastError, match="one class"):
        SplitRidge(CLASSES).check(one_class)
    Centred().check(one_class)
    with pytest.raises(RecastError, match="no images"):
        Centred().check(one_class[:0])
