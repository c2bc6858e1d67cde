"""The sums of a round's hidden updates, as they are found in its replies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from server.exchange.share import Share
from server.rounds.accepted import accepted
from server.rounds.federation import Federation
from server.rounds.secure import SecureSums
from server.rounds.state import TaskState
from server.rounds.summed import Summed


def hidden_sums(
    federation: Federation,
    sums: SecureSums,
    grid: Grid,
    states: Sequence[TaskState],
    replies: Iterable[Message],
    asked: Mapping[tuple[int, int], int],
) -> dict[int, list[Summed]]:
    """What the groups of each task tell, by the task's number.

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
    return {state.number: sums.open(grid, state, sent[state.number]) for state in states}
