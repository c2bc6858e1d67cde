"""An engine decides how many clients are at work at once; what each says is up to the client."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from torch import Tensor

from client.alone import Alone
from client.answer import answer
from client.asked import Asked
from client.node import Node, OwnData
from client.turn import Exam, Lesson, Look, take
from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.learner import Learned, Learner

if TYPE_CHECKING:
    from conftest import Caller

NODES = 4


class Recorded(Alone):
    """Notes how many came at once, and lets one lesson, or all work, go wrong."""

    def __init__(
        self, spoiled: Learned | RecastError | None = None, all_fail: bool = False
    ) -> None:
        self.sizes: list[int] = []
        self._spoiled, self._all_fail = spoiled, all_fail

    def train(self, lessons: Sequence[Lesson[Learner, OwnData]]) -> Iterable[Learned | RecastError]:
        self._note(lessons)
        found: list[Learned | RecastError] = [*super().train(lessons)]
        if self._spoiled is not None:
            found[1] = self._spoiled
        return found

    def features(self, looks: Sequence[Look[Learner, OwnData]]) -> Iterable[Tensor]:
        self._note(looks)
        return super().features(looks)

    def examine(self, exams: Sequence[Exam[Learner, OwnData]]) -> Iterable[int]:
        self._note(exams)
        return super().examine(exams)

    def _note(self, works: Sequence[object]) -> None:
        self.sizes.append(len(works))
        if self._all_fail:
            raise RecastError("the machine is on fire: leave")


def together(ready: Caller, request: pb.ToClient, engine: Alone) -> list[pb.ToServer]:
    """Clients of a folder each, the third of which was never greeted."""
    asked = Asked(request.SerializeToString())
    nodes = [Node(n, ready.cache, None, (n % 2, 2), ready.settings) for n in range(NODES)]
    for node in nodes:
        if node.number != 2:
            node.remember({task.id: task for task in ready.tasks})
    return take([answer(asked, node) for node in nodes], engine)


def kinds(replies: Sequence[pb.ToServer]) -> list[str | None]:
    return [reply.WhichOneof("body") for reply in replies]


def test_those_who_can_take_part_work_at_once_and_the_others_say_why(ready: Caller) -> None:
    engine = Recorded()
    replies = together(ready, pb.ToClient(train=ready.broadcast()), engine)
    assert kinds(replies) == ["update", "update", "refusal", "update"]
    assert replies[2].refusal.reason == pb.Refusal.REASON_UNKNOWN_TASK
    assert engine.sizes == [NODES - 1]
    assert len({reply.update.coefficients for reply in replies if reply.update.examples}) == 3


@pytest.mark.parametrize(("shift", "sizes"), [(0.4, [3, 3]), (0.0, [3])])
def test_an_evaluation_asks_for_the_start_only_where_it_differs(
    ready: Caller, shift: float, sizes: list[int]
) -> None:
    engine = Recorded()
    broadcast = ready.broadcast(shift=shift)
    replies = together(ready, pb.ToClient(evaluate=broadcast), engine)
    assert kinds(replies) == ["evaluation", "evaluation", "refusal", "evaluation"]
    assert engine.sizes == sizes
    assert ready.evaluate(broadcast) == replies[0], "as in company, so alone"


@pytest.mark.parametrize(
    "spoiled",
    [
        Learned(np.full(8, np.nan, np.float32), 0.5),
        RecastError("too little memory: close a window"),
    ],
)
def test_what_goes_wrong_with_one_client_is_its_refusal_alone(
    ready: Caller, spoiled: Learned | RecastError
) -> None:
    replies = together(ready, pb.ToClient(train=ready.broadcast()), Recorded(spoiled))
    assert kinds(replies) == ["update", "refusal", "refusal", "update"]
    said = replies[1].refusal
    assert (said.reason, said.task, said.round) == (pb.Refusal.REASON_FAILED, 1, 1)
    assert said.detail == (
        str(spoiled)
        if isinstance(spoiled, RecastError)
        else "training ended in NaN or infinity: lower the learning rate"
    )


@pytest.mark.parametrize("what", ["train", "evaluate"])
def test_what_goes_wrong_with_all_is_the_refusal_of_each(ready: Caller, what: str) -> None:
    request = pb.ToClient(**{what: ready.broadcast()})
    replies = together(ready, request, Recorded(all_fail=True))
    assert kinds(replies) == ["refusal"] * NODES
    assert replies[0].refusal.detail == "the machine is on fire: leave"


def test_a_message_that_asks_for_no_work_never_reaches_the_engine(ready: Caller) -> None:
    engine = Recorded(all_fail=True)
    hello = pb.HelloRequest(tasks=ready.tasks)
    assert kinds(together(ready, pb.ToClient(hello=hello), engine)) == ["hello"] * NODES
    assert take([], engine) == []
    assert engine.sizes == []


def test_clients_with_the_same_lists_remember_the_same_tasks(ready: Caller) -> None:
    told = [pb.Task(id=1, name="a"), pb.Task(id=2, name="b", class_hash=7)]
    asked = Asked(pb.ToClient(hello=pb.HelloRequest(tasks=told)).SerializeToString())
    ours = asked.tasks_in({1: 5, 2: 7})
    assert {number: task.class_hash for number, task in ours.items()} == {1: 5, 2: 7}
    assert asked.tasks_in({1: 5, 2: 7}) is ours, "of a million clients a gigabyte"
    assert asked.tasks_in({2: 7}) is asked.tasks
    assert not asked.tasks[1].class_hash
    assert asked.tasks_in({1: 6})[1].class_hash == 6
