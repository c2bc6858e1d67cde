"""What hidden updates contribute to a round: each node of a sum its mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.wire.messages import RefusedError
from server.exchange.traffic import Topic
from server.rounds.aggregation import Contribution
from server.rounds.federation import Federation
from server.rounds.secure import SecureSums
from server.rounds.state import TaskState


def hidden_contributions(
    federation: Federation,
    sums: SecureSums,
    grid: Grid,
    states: Sequence[TaskState],
    replies: Iterable[Message],
    asked: Mapping[tuple[int, int], int],
) -> dict[int, dict[int, Contribution]]:
    """What each node contributes to each task, by the task's number: the mean of its sum.

    Their mean, weighted by what each counted for, is that of all updates.

    Args:
        federation: the run.
        sums: that the replies' nodes were prepared for.
        grid: the way to the clients.
        states: the tasks.
        replies: updates.
        asked: the round that a node was asked for, by node and task.
    """
    topic = Topic(states[0].name, states[0].round + 1) if len(states) == 1 else Topic()
    sent: dict[int, dict[int, pb.Update]] = {state.number: {} for state in states}
    for answer in federation.traffic.receive(replies, topic, "update", federation.longest_update):
        node, update = answer.node, answer.body.update
        try:
            share = federation.roster.nodes.get(node, {}).get(update.task)
            sums.check(update, node, asked.get((node, update.task)), share)
            if node in sent[update.task]:
                raise RefusedError("replayed", "a second update of one task")
        except RefusedError as refused:
            federation.traffic.refuse(node, answer.topic, refused.reason, str(refused))
        else:
            sent[update.task][node] = update
    found: dict[int, dict[int, Contribution]] = {}
    for state in states:
        found[state.number] = {
            node: Contribution(summed.mean, max(1, round(weight * summed.unit)))
            for summed in sums.open(grid, state, sent[state.number])
            for node, weight in summed.weights.items()
        }
    return found
