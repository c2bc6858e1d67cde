"""What clients contribute to a round in updates that the server may read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Message

from recast_core.wire.codec import Vector
from recast_core.wire.messages import RefusedError
from server.exchange.traffic import Topic
from server.rounds.checks import check_update
from server.rounds.contribution import Contribution
from server.rounds.federation import Federation
from server.rounds.nearest import from_here, origin
from server.rounds.state import TaskState


def open_contributions(
    federation: Federation,
    states: Sequence[TaskState],
    replies: Iterable[Message],
    asked: Mapping[tuple[int, int], int],
    offered: Mapping[int, Mapping[int, Vector]],
) -> dict[int, dict[int, Contribution]]:
    """What each node contributes to each task; what cannot be used is refused and counted.

    Args:
        federation: the run.
        states: the tasks of the round.
        replies: answers to its broadcasts.
        asked: the round that a node was asked for, by node and task.
        offered: where else a task may have started, by its number and the other task's.

    Returns:
        Contributions by node, by the task's number.
    """
    topic = Topic(states[0].name, states[0].round + 1) if len(states) == 1 else Topic()
    found: dict[int, dict[int, Contribution]] = {state.number: {} for state in states}
    by_number = {state.number: state for state in states}
    for answer in federation.traffic.receive(replies, topic, "update", federation.longest_update):
        node, update = answer.node, answer.body.update
        try:
            round_ = asked.get((node, update.task))
            share = federation.roster.nodes.get(node, {}).get(update.task)
            state, elsewhere = by_number.get(update.task), offered.get(update.task, {})
            began = None if state is None else origin(update, state, elsewhere)
            contribution = check_update(
                federation.start, update, round_, share, federation.plan.hyper.bits, began
            )
            if state is not None and began is not None:
                contribution = from_here(contribution, began, state)
            if node in found[update.task]:
                raise RefusedError("replayed", "a second update of one task")
        except RefusedError as refused:
            federation.traffic.refuse(node, answer.topic, refused.reason, str(refused))
        else:
            found[update.task][node] = contribution
    return found
