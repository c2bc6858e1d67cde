"""Label mixes at the server: what is refused, and what one client can make of the fleet's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from protos import recast_v1_pb2 as pb
from recast_core.label_mix import pack_mix, unpack_mix
from recast_core.wire.messages import RefusedError
from server.rounds.contribution import Contribution
from server.rounds.listening import check_mix, mix_of, odd_mixes


def contribution(examples: int, *mix: float) -> Contribution:
    return Contribution(np.zeros(2, np.float32), examples, pack_mix(torch.tensor(mix)))


@pytest.mark.parametrize(
    ("update", "asked"),
    [
        (pb.Update(mix=b"ab"), False),
        (pb.Update(mix=b"ab", coefficients=b"c"), True),
        (pb.Update(mix=b"ab", scale=1.0), True),
        (pb.Update(mix=bytes(2)), True),
    ],
)
def test_a_mix_that_was_not_asked_for_or_says_nothing_or_something_else_is_refused(
    update: pb.Update, asked: bool
) -> None:
    with pytest.raises(RefusedError, match="label mix") as refused:
        check_mix(update, asked)
    assert refused.value.reason == "malformed"


def test_one_client_moves_the_fleet_s_mix_by_no_more_than_its_capped_weight() -> None:
    told = {node: contribution(10, 0.5, 0.5) for node in range(9)}
    told[9] = contribution(10**9, 1.0, 0.0)
    found = unpack_mix(mix_of(told, 3.0), 2)
    assert 0.5 < float(found[0]) < 0.65
    assert mix_of(told, 3.0) == mix_of(dict(reversed(told.items())), 3.0)


def test_a_mix_of_other_classes_and_clients_without_one_do_not_count() -> None:
    told = {node: contribution(10, 0.2, 0.8) for node in range(3)}
    wanted = mix_of(told, 0.0)
    told[3] = contribution(10, 0.9, 0.05, 0.05)
    told[4] = Contribution(np.zeros(2, np.float32), 10)
    assert mix_of(told, 0.0) == wanted
    assert mix_of({4: told[4]}, 0.0) == b""


def test_mixes_unlike_the_others_are_named_and_the_tasks_classes_decide_between_two() -> None:
    told = {node: contribution(10, 0.2, 0.8) for node in range(3)}
    assert not odd_mixes(told, 2)
    told[3] = contribution(10, 0.9, 0.05, 0.05)
    told[4] = Contribution(np.zeros(2, np.float32), 10)
    assert odd_mixes(told, 2) == {
        3: "a label mix of 3 classes, most clients tell of 2",
        4: "no label mix, which was asked for",
    }
    assert list(odd_mixes({0: told[0], 3: told[3]}, 2)) == [3]
    assert list(odd_mixes({0: told[0], 3: told[3]}, 3)) == [0]
    assert not odd_mixes({4: told[4]}, 2), "clients of before there were mixes"
