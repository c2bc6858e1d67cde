"""A task that goes back to an earlier round learns on from there, and what was undone is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, text

from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from server.record.rewinding import ask_rewind, reopen, rewind_asked
from server.record.tables_beside import RewoundAccuracy, RewoundRound

Making = Callable[..., Any]


def vectors(made: Any) -> list[bytes]:
    return [row.coefficients for row in made.registry.rounds(made.run, 1)]


def test_a_stopped_run_goes_on_from_the_round_it_went_back_to(federation: Making) -> None:
    made = federation(rounds=4)
    made.go()
    made.registry.finish_run(made.run, "finished")
    before = vectors(made)
    ask_rewind(made.registry, made.run, "t1", 2)
    assert rewind_asked(made.registry, made.run) == [1]
    reopen(made.registry, made.run)
    assert vectors(made) == before[:2]
    assert made.registry.accuracies(made.run) == []
    last = made.registry.last_run()
    assert last is not None
    assert last.status == "interrupted"
    with made.registry.reading() as session:
        kept = session.scalars(select(RewoundRound).order_by(RewoundRound.round)).all()
        assert [(row.round, row.coefficients) for row in kept] == [(3, before[2]), (4, before[3])]
        assert len(session.scalars(select(RewoundAccuracy)).all()) == 1
    again = federation(rounds=4, run=made.run)
    again.go()
    assert vectors(again) == before
    assert len(again.registry.accuracies(again.run)) == 1
    assert [(row.before, row.round) for row in again.registry.rewinds(again.run)] == [(4, 2)]


def test_a_running_server_goes_back_before_its_next_round(federation: Making) -> None:
    asked: list[int] = []
    made: Any = None

    def script(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.train.round == 3 and not asked:
            asked.append(ask_rewind(made.registry, made.run, "t1", 1))
        return right

    made = federation(rounds=4, scripts={1: script})
    made.go()
    made.strategy.start(made.grid, made.strategy.initial_arrays(), made.strategy.rounds_left())
    assert asked
    whole = federation(rounds=4, run=made.registry.start_run({}, made.bank.sha256, {}, "test"))
    whole.go()
    assert vectors(made) == vectors(whole)
    found = made.registry.rewinds(made.run)
    assert [(row.before, row.round, row.done is None) for row in found] == [(2, 1, False)]


def test_a_run_does_not_end_while_a_task_is_to_go_back(federation: Making) -> None:
    made = federation(rounds=2)
    made.go()
    ask_rewind(made.registry, made.run, "t1", 0)
    assert not made.registry.finish_with(made.run, 1)
    assert made.strategy.ready(made.grid)
    np.testing.assert_array_equal(made.strategy.states[1].vector, made.bank.initial_vector.numpy())
    assert made.strategy.rounds_left() > 0


def test_only_recorded_earlier_rounds_can_be_gone_back_to(federation: Making) -> None:
    made = federation(rounds=2)
    with pytest.raises(RecastError, match="has no finished round: nothing to rewind"):
        ask_rewind(made.registry, made.run, "t1", 0)
    made.go()
    for round_ in (-1, 2, 7):
        with pytest.raises(RecastError, match="cannot go back to round"):
            ask_rewind(made.registry, made.run, "t1", round_)
    with pytest.raises(RecastError, match="has no task 'x'"):
        ask_rewind(made.registry, made.run, "x", 1)


@pytest.mark.parametrize("config", ["[1,2", "[" * 100_000])
def test_a_registry_that_was_edited_is_said_to_be_damaged(federation: Making, config: str) -> None:
    made = federation(rounds=2)
    made.go()
    with made.registry.writing("damage") as session:
        session.execute(text("update runs set config = :config"), {"config": config})
    with pytest.raises(RecastError, match="is damaged"):
        made.registry.last_run()
    with made.registry.writing("damage") as session:
        session.execute(text("update rounds set coefficients = x'0000c07f', count = 1"))
    with pytest.raises(RecastError, match="holds NaN or infinity"):
        made.registry.coefficients(made.run, 1)
