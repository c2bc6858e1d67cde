"""What clients contribute to a round in updates that the server may read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from flwr.app import Message

from protos import recast_v1_pb2 as pb
from recast_core.wire.codec import Vector
from recast_core.wire.messages import RefusedError
from server.exchange.share import Share
from server.rounds.accepted import accepted
from server.rounds.checks import check_update
from server.rounds.contribution import Contribution
from server.rounds.federation import Federation
from server.rounds.listening import check_mix, nothing
from server.rounds.losses import told_loss
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
    by_number = {state.number: state for state in states}
    initial = federation.start.initial_vector.numpy()
    origins: dict[tuple[int, int], Vector] = {}
    places: dict[int, dict[int, Vector]] = {number: {} for number in by_number}

    def contribution(
        update: pb.Update, node: int, round_: int | None, share: Share | None
    ) -> Contribution:
        state, elsewhere = by_number.get(update.task), offered.get(update.task, {})
        began = None if state is None else origin(update, state, elsewhere)
        hyper = federation.plan.hyper
        if update.salt or update.shares:
            raise RefusedError("malformed", "sealed shares that were not asked for")
        if update.mix:
            check_mix(update, state is not None and federation.listens(state))
            update.coefficients = nothing(federation.start, hyper.bits)
        from_start = None
        if began is not None:
            where = update.task, update.started
            if where not in origins:  # the same for all clients that started there
                origins[where] = began - initial
            from_start = origins[where]
        found = check_update(federation.start, update, round_, share, hyper.bits, from_start)
        loss = told_loss(update, asked=hyper.report_loss)
        if update.mix or loss is not None:
            found = replace(found, mix=update.mix, loss=loss)
        if began is not None:
            # Of a second update that is refused: where the first began is what counts.
            places[update.task].setdefault(node, began)
        return found

    told = accepted(federation, states, replies, asked, contribution)
    return {
        number: from_here(found, places[number], by_number[number])
        for number, found in told.items()
    }
