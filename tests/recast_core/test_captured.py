"""A captured step trains as the steps do that are launched one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recast_core import RecastError
from recast_core.folded import BankFold, Chunking, FoldedClient, Graphs, How, ImageStore, train
from recast_core.folded import captured as module
from recast_core.folded.split import split_model
from recast_core.objectives import CrossEntropy, Objective, SplitRidge
from recast_core.recipe import Recipe
from tests.recast_core.test_folded import CLASSES, CPU, RIDGE, attached, folded, pictures, shares

RECIPE = Recipe(3, 16, 2e-2)
EQUAL = (16, 16, 16, 16)


def eager() -> Graphs:
    """What a CPU has in place of graphs: the step itself, on tensors that stay where they are."""
    return Graphs(rows=1 << 20, worth=1)


@pytest.mark.parametrize("name", ["conv", "both"])
def test_equal_clients_get_the_same_bits(name: str) -> None:
    net = attached(name)
    images, labels = pictures()
    model, store = folded(net, images)
    clients = shares(labels, EQUAL)
    graphs = eager()
    fold = BankFold(model)
    plain = train(fold, store, clients, RIDGE, RECIPE, how=How(Chunking(4)))
    for _ in range(2):
        found = train(fold, store, clients, RIDGE, RECIPE, how=How(Chunking(4), graphs=graphs))
        assert torch.equal(found.coefficients, plain.coefficients)
        assert torch.equal(found.losses, plain.losses)
    assert graphs.captured == 1, "the second training replays what the first one captured"
    moved = plain.coefficients[:, None] - plain.coefficients[None]
    assert float(moved.abs().amax()) > 1e-3, "clients differ"


def test_unequal_clients_end_where_they_end_without() -> None:
    net = attached("conv")
    images, labels = pictures()
    model, store = folded(net, images)
    clients = shares(labels, (40, 38, 37))
    plain, found = (
        train(BankFold(model), store, clients, RIDGE, RECIPE, how=How(Chunking(3), graphs=graphs))
        for graphs in (None, eager())
    )
    torch.testing.assert_close(found.coefficients, plain.coefficients, rtol=0, atol=1e-5)


def test_only_the_step_of_the_same_training_is_replayed() -> None:
    net = attached("conv")
    images, labels = pictures()
    model, store = folded(net, images)
    clients, graphs, fold = shares(labels, EQUAL), eager(), BankFold(model)

    def captured(store: ImageStore, clients: list[FoldedClient], objective: Objective) -> int:
        train(fold, store, clients, objective, RECIPE, how=How(Chunking(4), graphs=graphs))
        return graphs.captured

    assert captured(store, clients, RIDGE) == 1
    assert captured(store, clients, SplitRidge(CLASSES)) == 1, "the same function"
    assert captured(store, clients[:3], RIDGE) == 2, "another shape"
    _, other = folded(net, images + 1)
    assert captured(other, clients, RIDGE) == 3, "other images"
    assert captured(other, clients, CrossEntropy(net.head)) == 4, "another loss"
    assert captured(other, clients, CrossEntropy(net.head)) == 4


def test_large_short_and_ragged_trainings_are_left_alone() -> None:
    net = attached("conv")
    images, labels = pictures()
    model, store = folded(net, images)
    for graphs, sizes in (
        (Graphs(rows=60, worth=1), EQUAL),
        (Graphs(worth=99), EQUAL),
        (eager(), (40, 2, 2)),
    ):
        how = How(Chunking(4), graphs=graphs)
        train(BankFold(model), store, shares(labels, sizes), RIDGE, RECIPE, how=how)
        assert graphs.captured == 0


def test_what_no_graph_can_hold_trains_without(monkeypatch: pytest.MonkeyPatch) -> None:
    net = attached("conv")
    images, labels = pictures()
    model, store = folded(net, images)
    clients = shares(labels, EQUAL)

    def refuse(step: object, device: torch.device) -> object:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(module, "_captured", refuse)
    graphs = eager()
    plain, found = (
        train(BankFold(model), store, clients, RIDGE, RECIPE, how=How(Chunking(4), graphs=g))
        for g in (None, graphs)
    )
    assert torch.equal(found.coefficients, plain.coefficients)
    assert graphs.failed == "operation not permitted when stream is capturing"


class _Blind(Objective):
    def losses(self, features: Tensor, batch: object) -> Tensor:
        """Without a gradient."""
        return features.detach().flatten(1).sum(1)


def test_a_loss_that_no_coefficient_reaches_is_refused_here_too() -> None:
    net = attached("conv")
    images, labels = pictures()
    model = split_model(net, images.shape[-1])
    store = ImageStore(images, lambda x: x, model.prefix, CPU)
    with pytest.raises(RecastError, match="no coefficient reaches"):
        train(
            BankFold(model), store, shares(labels, EQUAL), _Blind(), RECIPE,
            how=How(Chunking(4), graphs=eager()),
        )  # fmt: skip
