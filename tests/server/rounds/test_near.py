"""A head that travels does not follow the few who tell of their features otherwise than others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from recast_core.heads import Statistics, head_kind, right_answers
from server.rounds.near import trusted_statistics

KINDS = ["means", "ridge", "shared"]
CLASSES, WIDTH, CLIENTS = 6, 8, 10
Told = dict[str, torch.Tensor]


def told_by(kind: str, seed: int = 0, clients: int = CLIENTS) -> list[Told]:
    """Statistics of clients that have four or five of the classes each."""
    random = torch.Generator().manual_seed(seed)
    centres = _centres()
    found = []
    for client in range(clients):
        having = torch.tensor([(client + step) % CLASSES for step in range(4 + client % 2)])
        labels = having[torch.randint(len(having), (60,), generator=random)]
        features = centres[labels] + torch.randn(60, WIDTH, generator=random)
        found.append(dict(head_kind(kind).statistics(features, labels, CLASSES)))
    return found


def _centres() -> torch.Tensor:
    return 2 + 2 * torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(99))


def negated(told: Told) -> Told:
    return told | {name: -told[name] for name in ("means", "weight", "bias") if name in told}


def exchanged(told: Told) -> Told:
    return told | {"classes": (CLASSES - 1 - told["classes"])}


def spread_out(told: Told) -> Told:
    """Sums of squares far from the others', where there are any."""
    return told | ({"gram": 20 * told["gram"]} if "gram" in told else {})


def right(kind: str, statistics: list[Statistics]) -> float:
    head = head_kind(kind).merge(statistics, CLASSES)
    assert head is not None
    labels = torch.arange(600) % CLASSES
    noise = torch.randn(600, WIDTH, generator=torch.Generator().manual_seed(7))
    return right_answers(head, _centres()[labels] + noise, labels) / 600


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [negated, exchanged])
def test_three_of_ten_that_tell_otherwise_are_left_out_and_cost_nothing(
    kind: str, change: Callable[[Told], Told]
) -> None:
    honest = told_by(kind)
    told = [change(one) for one in honest[:3]] + honest[3:]
    kept = trusted_statistics(kind, told)
    assert set(kept) == set(range(3, 10))
    assert right(kind, list(kept.values())) > right(kind, list(told)) + 0.03
    assert right(kind, list(kept.values())) >= right(kind, list(honest[3:])) - 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_where_nobody_lies_nobody_is_left_out_and_the_head_is_as_good(kind: str) -> None:
    for seed in range(5):
        told = told_by(kind, seed)
        kept = trusted_statistics(kind, told)
        assert len(kept) == CLIENTS
        assert right(kind, list(kept.values())) >= right(kind, list(told)) - 0.01


def test_sums_of_squares_as_nobody_else_has_them_are_left_out() -> None:
    told = told_by("ridge")
    kept = trusted_statistics("ridge", [spread_out(one) for one in told[:3]] + told[3:])
    assert set(kept) == set(range(3, 10))


@pytest.mark.parametrize("kind", ["ridge", "shared"])
def test_the_row_of_a_class_comes_no_farther_from_the_others_than_is_usual(kind: str) -> None:
    told, name = told_by(kind), head_kind(kind).rows
    far = told[0][name].clone()
    far[0, 0] += 5.0
    kept = trusted_statistics(kind, [told[0] | {name: far}, *told[1:]])
    moved = kept[0][name].double() - told[0][name].double()
    assert moved[0].norm() < 4.0
    assert moved[1:].norm() < 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_than_three_are_taken_as_they_are(kind: str) -> None:
    told = told_by(kind, clients=2)
    kept = trusted_statistics(kind, [negated(told[0]), told[1]])
    assert set(kept) == {0, 1}
    other = head_kind(kind).exact(told[1])
    assert all(torch.equal(kept[1][name].double(), other[name].double()) for name in other)


@pytest.mark.parametrize("kind", KINDS)
def test_of_clients_with_one_class_each_nobody_is_judged(kind: str) -> None:
    alone = []
    random = torch.Generator().manual_seed(0)
    for client in range(6):
        labels = torch.full((20,), client % 2)
        features = _centres()[labels] + torch.randn(20, WIDTH, generator=random)
        alone.append(dict(head_kind(kind).statistics(features, labels, CLASSES)))
    assert len(trusted_statistics(kind, alone)) == 6


def test_more_than_half_are_never_left_out() -> None:
    told = told_by("means")
    kept = trusted_statistics("means", [exchanged(one) for one in told[:6]] + told[6:])
    assert len(kept) >= 6
