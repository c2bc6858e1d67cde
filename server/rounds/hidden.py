"""What hidden updates contribute to a round: each node of a sum its mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from server.exchange.share import Share
from server.rounds.accepted import accepted
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

    def checked(update: pb.Update, node: int, round_: int | None, share: Share | None) -> pb.Update:
        sums.check(update, node, round_, share)
        return update

    sent = accepted(federation, states, replies, asked, checked)
    found: dict[int, dict[int, Contribution]] = {}
    for state in states:
        found[state.number] = {
            node: Contribution(summed.mean, max(1, round(weight * summed.unit)))
            for summed in sums.open(grid, state, sent[state.number])
            for node, weight in summed.weights.items()
        }
    return found
