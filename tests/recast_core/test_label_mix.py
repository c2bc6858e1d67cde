"""Label mixes: habits are divided out, labels counted, bytes few, folded and alone agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recast_core.heads import right_answers
from recast_core.label_mix import (
    counted_mix,
    expected_mix,
    fleet_mix,
    mean_prediction,
    pack_mix,
    unpack_mix,
)
from recast_core.objectives import Batch, LabelFree
from recast_core.wire.messages import RefusedError

CLASSES, CLIENTS = 10, 20


def far(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().sum(-1).mean())


def test_of_clients_with_few_classes_each_the_fleet_shows_the_network_s_habits() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.distributions.Dirichlet(torch.full((CLIENTS, CLASSES), 0.3))
    torch.manual_seed(0)
    mixes = truth.sample()
    mixes /= mixes.sum(0) * CLASSES / CLIENTS
    mixes /= mixes.sum(1, keepdim=True)
    habit = torch.rand(CLASSES, generator=generator) + 0.2  # how readily a class is predicted
    confusion = 0.5 * torch.eye(CLASSES) + 0.5 * habit / habit.sum()
    seen = mixes @ confusion
    fleet = seen.mean(0)
    found = torch.stack([expected_mix(own, fleet) for own in seen])
    assert far(found, mixes) < far(seen, mixes)
    even = torch.full((CLIENTS, CLASSES), 1 / CLASSES)
    assert far(found, mixes) < far(even, mixes)
    torch.testing.assert_close(found.sum(1), torch.ones(CLIENTS))


def test_a_mix_takes_a_byte_a_class_and_comes_back_to_a_percent() -> None:
    torch.manual_seed(1)
    mix = mean_prediction(3 * torch.randn(40, 100))
    content = pack_mix(mix)
    assert len(content) == 100
    torch.testing.assert_close(unpack_mix(content, 100), mix, rtol=0.2, atol=1e-3)
    for bad, classes in ((content, 99), (b"", 3), (bytes(4), 4)):
        with pytest.raises(RefusedError, match="label mix"):
            unpack_mix(bad, classes)


def test_the_fleet_s_mix_weighs_clients_and_asks_not_in_which_order_they_came() -> None:
    one, other = pack_mix(torch.tensor([0.9, 0.1])), pack_mix(torch.tensor([0.1, 0.9]))
    found = unpack_mix(fleet_mix([one, other], [3, 1]), 2)
    torch.testing.assert_close(found, torch.tensor([0.7, 0.3]), rtol=0, atol=0.01)
    assert fleet_mix([one, other], [3, 1]) == fleet_mix([other, one], [1, 3])


def test_predictions_like_the_expected_mix_are_lowest_not_even_ones() -> None:
    real = torch.ones(1, 4, dtype=torch.bool)
    ids = torch.zeros(1, 4, dtype=torch.int64)
    mix = torch.tensor([[0.7, 0.25, 0.05]])
    objective = LabelFree(nn.Identity())

    def loss(classes: list[int], told: Tensor | None) -> float:
        logits = 20.0 * torch.eye(3)[classes]
        batch = Batch(ids, ids, real, 3, mix=told)
        alone = LabelFree(nn.Identity(), None if told is None else told[0])
        found = objective.losses(logits[None], batch)
        torch.testing.assert_close(found, alone.losses(logits[None], batch._replace(mix=None)))
        return float(found)

    assert loss([0, 0, 0, 1], mix) < loss([0, 1, 2, 1], mix)
    assert loss([0, 1, 2, 1], None) < loss([0, 0, 0, 1], None)


def test_few_labels_say_little_and_no_class_is_ruled_out() -> None:
    none = counted_mix(torch.zeros(0, dtype=torch.int64), 4)
    torch.testing.assert_close(none, torch.full((4,), 0.25))
    one, many = (counted_mix(torch.full((n,), 2), 4) for n in (1, 100))
    assert 0.25 < one[2] < 0.5 < many[2] < 1
    assert float(many.min()) > 0
    torch.testing.assert_close(many.sum(), torch.tensor(1.0))


def test_a_label_mix_tips_what_is_undecided_and_not_what_is_sure() -> None:
    head = nn.Identity()
    mix = counted_mix(torch.tensor([1] * 8), 2)  # 0.1 and 0.9
    undecided, sure = torch.tensor([[0.1, 0.0]]), torch.tensor([[5.0, 0.0]])
    zero, first = torch.tensor([0]), torch.tensor([1])
    assert right_answers(head, undecided, zero) == 1
    assert right_answers(head, undecided, first, mix) == 1
    assert right_answers(head, sure, zero, mix) == 1
