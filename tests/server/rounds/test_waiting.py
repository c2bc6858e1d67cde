"""Nobody waits long for who does not answer, in any phase: quorum, deadline, the others' time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from protos import recast_v1_pb2 as pb
from server.exchange.pace import LEAST_ALONE, LEAST_LEARNED, LEAST_SECONDS, MOST_OWED, Pace
from server.exchange.wait import Question, Wait

if TYPE_CHECKING:
    from conftest import Federation

Make = Callable[..., "Federation"]
NEVER = 1e9
HOUR = 3600.0


def delay(**seconds: float) -> Callable[[pb.ToClient], float]:
    return lambda question: seconds.get(str(question.WhichOneof("body")), 0.0)


def clients(made: Federation, task: int = 1) -> list[int]:
    return [entry.clients for entry in made.registry.rounds(made.run, task)]


def test_a_silent_client_costs_one_short_wait_and_is_asked_again_in_every_round(
    federation: Make, caplog: pytest.LogCaptureFixture
) -> None:
    made = federation(nodes=3, rounds=6, deadline=HOUR, max_lag=10)
    made.grid.nodes[3].delay = delay(train=NEVER)
    with caplog.at_level(logging.WARNING, "recast.server"):
        made.go()
    assert clients(made) == [2] * 6
    assert LEAST_SECONDS <= made.clock.now <= LEAST_SECONDS + 4
    assert [round_ for _, round_ in made.trained(3)] == [1, 2, 3, 4, 5, 6]
    told = [text for text in caplog.messages if "no answer in time from 3" in text]
    assert len(told) == 1
    made.strategy.record_rest(last=True)
    assert made.reasons() == {"silent": 6}


def test_without_the_others_time_a_silent_client_costs_one_deadline_in_all(
    federation: Make,
) -> None:
    made = federation(nodes=3, rounds=6, deadline=100.0, max_lag=0)
    made.grid.nodes[3].delay = delay(train=NEVER)
    made.go()
    assert clients(made) == [2] * 6
    assert made.clock.now == pytest.approx(100, abs=4)


def test_who_takes_ten_times_as_long_is_waited_for_and_who_takes_longer_is_not(
    federation: Make,
) -> None:
    made = federation(nodes=4, rounds=3, deadline=HOUR, max_lag=10)
    for node, seconds in ((1, 4.0), (2, 5.0), (3, 49.0), (4, 90.0)):
        made.grid.nodes[node].delay = delay(train=seconds)
    made.go()
    # In the second round the fourth is not waited for; it answers late each time.
    assert clients(made) == [3, 3, 3]
    assert made.clock.now < 3 * 55
    made.strategy.record_rest(last=True)
    assert set(made.reasons()) <= {"late", "silent"}


def test_once_it_is_known_how_long_rounds_take_who_just_makes_the_least_is_not_waited_for(
    federation: Make,
) -> None:
    made = federation(nodes=3, rounds=10, deadline=HOUR, max_lag=10)
    for node, seconds in ((1, 0.1), (2, 0.1), (3, LEAST_SECONDS - 1)):
        made.grid.nodes[node].delay = delay(train=seconds)
    made.go()
    assert clients(made) == [3, 3] + [2] * 8
    assert made.clock.now <= 2 * LEAST_SECONDS + LEAST_LEARNED + 8


def test_who_is_slow_within_reason_is_waited_for_in_every_round(federation: Make) -> None:
    made = federation(nodes=3, rounds=10, deadline=HOUR, max_lag=10)
    for node, seconds in ((1, 0.5), (2, 0.5), (3, 14.0)):
        made.grid.nodes[node].delay = delay(train=seconds)
    made.go()
    assert clients(made) == [3] * 10


def test_newcomers_have_as_long_as_ever() -> None:
    pace = Pace(HOUR, 10)
    for kind in ("train", *LEAST_ALONE):
        for _ in range(9):
            pace.answered(1, kind, "a", 0.1)
        least = LEAST_LEARNED if kind == "train" else LEAST_SECONDS
        assert pace.limit(kind, "a", 3, [0.1, 0.1]) == least


def test_who_was_away_for_a_while_is_waited_for_again_when_its_answers_come(
    federation: Make,
) -> None:
    made = federation(nodes=3, rounds=9, deadline=HOUR, max_lag=10)
    seen: list[int] = []

    def slow_once(question: pb.ToClient) -> float:
        if question.WhichOneof("body") != "train":
            return 0.0
        seen.append(question.train.round)
        return {1: NEVER, 2: 3.0}.get(question.train.round, 1.0)

    for node in (1, 2):
        made.grid.nodes[node].delay = delay(train=2.0)
    made.grid.nodes[3].delay = slow_once
    made.go()
    found = clients(made)
    assert found[0] == 2
    assert found[-1] == 3
    assert found.count(3) >= 6
    assert seen == list(range(1, 10))


def test_who_is_silent_in_every_other_round_costs_a_wait_seldom(federation: Make) -> None:
    """Each time it wants to be waited for again it has to answer twice as often."""
    made = federation(nodes=3, rounds=40, deadline=HOUR, max_lag=10)

    def flaps(question: pb.ToClient) -> float:
        return NEVER if question.WhichOneof("body") == "train" and question.train.round % 2 else 0.0

    made.grid.nodes[3].delay = flaps
    made.go()
    assert len(clients(made)) == 40
    assert made.clock.now <= 2 * LEAST_SECONDS + 45


@pytest.mark.parametrize("kind", LEAST_ALONE)
def test_who_is_not_waited_for_keeps_nobody_either_where_it_alone_is_asked(kind: str) -> None:
    """What does not hang on images takes as long for one task as for another."""
    pace = Pace(HOUR, 10)
    pace.answered(2, kind, "a", 1.0)
    assert pace.limit(kind, "b", 1, []) == pace.limit(kind, "b", 0, []) <= 5
    assert pace.limit("train", "b", 0, []) == HOUR


def test_silence_is_forgotten_after_many_answers() -> None:
    pace = Pace(HOUR, 10)

    def answers(count: int) -> None:
        for _ in range(count):
            pace.answered(1, "train", "a", 1.0)

    for owed in (1, 2, 4, 8):
        pace.missed([1])
        pace.missed([1])  # one of several tasks that are asked at once
        answers(owed - 1)
        assert pace.overdue == {1}
        answers(1)
        assert not pace.overdue
    answers(MOST_OWED)
    pace.missed([1])
    answers(1)
    assert not pace.overdue


@pytest.mark.parametrize("kind", ["hello", "bank"])
def test_a_newcomer_that_does_not_greet_back_keeps_the_others_for_seconds_once(
    federation: Make, kind: str
) -> None:
    made = federation(nodes=2, rounds=4, deadline=HOUR, max_lag=10)
    quiet = federation(nodes=3).grid.nodes[3]
    quiet.delay = delay(**{kind: NEVER})
    answer = made.grid.nodes[1].answer

    def then_comes(question: pb.ToClient) -> list[object]:
        if question.WhichOneof("body") == "train" and question.train.round == 1:
            made.grid.nodes[3] = quiet
        return answer(question)

    made.grid.nodes[1].answer = then_comes  # type: ignore[method-assign]
    made.go()
    assert clients(made) == [2] * 4
    assert made.clock.now <= LEAST_ALONE[f"query.{kind}"] + 3
    assert made.reasons() == {"silent": 1}


@pytest.mark.parametrize("kind", ["evaluate"])
def test_an_evaluation_waits_no_longer_than_a_round(federation: Make, kind: str) -> None:
    made = federation(nodes=4, rounds=1, deadline=HOUR, max_lag=10)
    made.grid.nodes[3].delay = delay(**{kind: NEVER})
    made.go()
    assert [entry.clients for entry in made.registry.accuracies(made.run)] == [3]
    assert made.clock.now <= LEAST_SECONDS + 3


def test_a_quorum_closes_greeting_and_evaluation_too(federation: Make) -> None:
    made = federation(nodes=4, rounds=2, deadline=HOUR, quorum=0.5)
    made.grid.nodes[4].delay = delay(hello=NEVER)
    made.grid.nodes[3].delay = delay(evaluate=NEVER)
    made.go()
    assert clients(made) == [3, 3]
    assert [entry.clients for entry in made.registry.accuracies(made.run)] == [2]
    assert made.clock.now < 10


def waiting(
    made: Federation, monkeypatch: pytest.MonkeyPatch, then: Callable[[], object] = lambda: None
) -> None:
    """Whoever waits for nodes waits by the federation's clock, and ``then`` something happens."""

    def sleep(seconds: float) -> None:
        made.clock.sleep(seconds)
        then()

    clock = SimpleNamespace(monotonic=made.clock, sleep=sleep)
    monkeypatch.setattr("server.exchange.roster.time", clock)


def test_after_a_restart_the_evaluation_waits_for_those_who_took_part(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = federation(nodes=3, rounds=2, deadline=5.0)
    for member in made.grid.nodes.values():
        member.delay = delay(evaluate=NEVER)
    made.go()
    assert made.registry.accuracies(made.run) == []
    again = federation(nodes=3, rounds=2, deadline=5.0, run=made.run, patience=4.0)
    late = again.grid.nodes.pop(3)
    waiting(again, monkeypatch, lambda: again.grid.nodes.update({3: late}))
    again.go()
    assert [entry.clients for entry in made.registry.accuracies(made.run)] == [3]


def test_after_a_restart_nobody_waits_for_ever_for_who_does_not_come_back(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = federation(nodes=3, rounds=1, deadline=5.0)
    for member in made.grid.nodes.values():
        member.delay = delay(evaluate=NEVER)
    made.go()
    again = federation(nodes=2, rounds=1, deadline=5.0, run=made.run, patience=0.1)
    waiting(again, monkeypatch)
    began = made.clock.now
    again.go()
    assert [entry.clients for entry in made.registry.accuracies(made.run)] == [2]
    assert made.clock.now - began == pytest.approx(5 * 0.1)


def test_what_the_rest_may_take_is_found_once_for_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[int] = []
    found = Pace.limit

    def counted(self: Pace, kind: str, about: str, asked: int, taken: Sequence[float]) -> float:
        limits.append(len(taken))
        return found(self, kind, about, asked, taken)

    monkeypatch.setattr(Pace, "limit", counted)
    questions = [Question(node, "a/1", "train", NEVER) for node in range(300)]
    wait = Wait(questions, Pace(HOUR, 3), 0.0, {"a/1": 300}, hurry=True)
    for done in (100, 200):
        for question in questions[done - 100 : done]:
            wait.answered(question, 1.0, useful=True)
        assert {wait.is_over(question, 2.0) for question in questions[done:]} == {False}
    assert limits == [100, 200]
    assert all(wait.is_over(question, LEAST_SECONDS + 1) for question in questions[200:])
