"""A simulated fleet loses what it says, and changes nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pytest
from flwr.app import Message
from flwr.serverapp import Grid

from experiments.engines.fleet import Fleet
from experiments.engines.fleet_grid import FleetGrid
from experiments.engines.local import LocalGrid
from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from server.flower import server_identity


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


class _Updates(LocalGrid):
    """Every client answers a training message with an update of as many examples as its number."""

    def answers(self, messages: Sequence[Message]) -> Iterable[Message]:
        for message in messages:
            node = message.metadata.dst_node_id
            update = pb.ToServer(update=pb.Update(examples=node, coefficients=bytes([node])))
            if message.metadata.message_type != "train":
                update = pb.ToServer(refusal=pb.Refusal(reason=pb.Refusal.Reason.REASON_MALFORMED))
            yield Message(to_content(update.SerializeToString()), reply_to=message)


def _round(grid: Grid, kind: str = "train", clients: int = 200) -> dict[int, bytes | None]:
    questions = [
        grid.create_message(to_content(b"?"), kind, node, "a/1") for node in range(1, clients + 1)
    ]
    return {
        reply.metadata.src_node_id: None if reply.has_error() else from_content(reply)
        for reply in grid.send_and_receive(questions)
    }


def _fleet(fleet: Fleet, seed: int = 0) -> FleetGrid:
    return FleetGrid(_Updates(200, lambda: None), fleet, seed, epochs=1)


def test_only_lost_answers_change() -> None:
    calm = _round(_Updates(200, lambda: None))
    grid = _fleet(Fleet(availability=0.7, drop_out=0.3))
    rough = _round(grid)
    kept = {node: body for node, body in rough.items() if body is not None}
    assert kept.items() <= calm.items()
    assert len(kept) == 200 - grid.lost["away"] - grid.lost["dropped"]
    assert 60 < len(kept) < 140


def test_the_same_seed_loses_the_same_answers() -> None:
    fleet = Fleet(availability=0.7, drop_out=0.3, stragglers=1.0, round_limit=1.0)
    assert _round(_fleet(fleet)) == _round(_fleet(fleet))
    assert _round(_fleet(fleet)) != _round(_fleet(fleet, seed=1))


def test_greeting_and_evaluation_are_reliable() -> None:
    grid = _fleet(Fleet(availability=0.0, drop_out=1.0))
    assert None not in _round(grid, "evaluate").values()
    assert set(_round(grid).values()) == {None}


def test_a_refusal_is_no_update_and_is_never_late() -> None:
    grid = FleetGrid(_Refusing(3, lambda: None), Fleet(drop_out=1.0), 0, epochs=1)
    assert None not in _round(grid, clients=3).values()
    assert grid.report()["tasks"] == {}


def test_a_round_ends_with_its_last_answer_or_at_its_limit() -> None:
    unlimited = _fleet(Fleet(image_seconds=0.1))
    _round(unlimited)
    assert unlimited.round_seconds == {("a", 1): 20.0}
    limited = _fleet(Fleet(image_seconds=0.1, round_limit=10.0))
    assert sum(body is None for body in _round(limited).values()) == 100
    assert limited.round_seconds == {("a", 1): 10.0}


class _Refusing(LocalGrid):
    def answers(self, messages: Sequence[Message]) -> Iterable[Message]:
        for message in messages:
            refusal = pb.ToServer(refusal=pb.Refusal(reason=pb.Refusal.Reason.REASON_MALFORMED))
            yield Message(to_content(refusal.SerializeToString()), reply_to=message)
