"""The updates of a round that may be used: one of each node and task, the rest refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from flwr.app import Message

from protos import recast_v1_pb2 as pb
from recast_core.wire.messages import RefusedError
from server.exchange.share import Share
from server.exchange.traffic import Topic
from server.rounds.federation import Federation
from server.rounds.state import TaskState

T = TypeVar("T")
# Of an update, its node, the round that this node was asked for and what it has of the task
# (``None`` for none): what it is worth. Raises RefusedError.
Check = Callable[[pb.Update, int, int | None, Share | None], T]


def accepted(
    federation: Federation,
    states: Sequence[TaskState],
    replies: Iterable[Message],
    asked: Mapping[tuple[int, int], int],
    check: Check[T],
) -> dict[int, dict[int, T]]:
    """What ``check`` makes of each update, by node, by the task's number.

    Args:
        federation: the run; what cannot be used is refused and counted there.
        states: the tasks of the round.
        replies: answers to its broadcasts.
        asked: the round that a node was asked for, by node and task.
        check: refuses an update of a task that is not among ``states``.
    """
    topic = Topic(states[0].name, states[0].round + 1) if len(states) == 1 else Topic()
    found: dict[int, dict[int, T]] = {state.number: {} for state in states}
    for answer in federation.traffic.receive(replies, topic, "update", federation.longest_update):
        node, update = answer.node, answer.body.update
        try:
            share = federation.roster.nodes.get(node, {}).get(update.task)
            worth = check(update, node, asked.get((node, update.task)), share)
            if node in found[update.task]:
                raise RefusedError("replayed", "a second update of one task")
        except RefusedError as refused:
            federation.traffic.refuse(node, answer.topic, refused.reason, str(refused))
        else:
            found[update.task][node] = worth
    return found


def without(
    federation: Federation,
    state: TaskState,
    told: Mapping[int, T],
    odd: Mapping[int, str],
    reason: str,
) -> dict[int, T]:
    """What nodes told of a task, without the ``odd`` ones, which are refused for a reason.

    Args:
        federation: the run; refusals are counted there.
        state: of the task.
        told: by node.
        odd: why not, by node.
        reason: of all of these, as the registry has it.
    """
    topic = Topic(state.name, state.round + 1)
    for node, detail in sorted(odd.items()):
        federation.traffic.refuse(node, topic, reason, detail)
    return {node: one for node, one in told.items() if node not in odd}
