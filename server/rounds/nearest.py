"""Where a task may start: each client takes an earlier task that clearly fits its images better.

The candidates travel in the broadcast of the first round and the choice in the update, so that it
costs no exchange of its own. The task's own start is always among them, and it is the rule: where
fewer than a third of the clients started elsewhere, it is where all are taken to have started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from protos import recast_v1_pb2 as pb
from recast_core.start import Start
from recast_core.wire.codec import Vector
from recast_core.wire.messages import RefusedError, to_broadcast
from server.rounds.aggregation import Contribution
from server.rounds.federation import Federation
from server.rounds.state import TaskState

# One of so many clients must start elsewhere before any of them does.
ENOUGH = 3
# The latest so many; each costs a broadcast's coefficients.
MOST = 4


def candidates(start: Start, states: Sequence[TaskState], bits: int) -> list[pb.Candidate]:
    """The coefficients of tasks that have been learned, the latest last.

    Args:
        start: of the run.
        states: of all tasks.
        bits: of a broadcast's numbers.
    """
    found = []
    for state in [state for state in states if state.round][-MOST:]:
        told = to_broadcast(start, state.number, state.round, state.vector, None, bits)
        if told.coefficients:
            found.append(
                pb.Candidate(task=state.number, scale=told.scale, coefficients=told.coefficients)
            )
    return found


def offer(
    federation: Federation, learned: Sequence[TaskState], body: pb.ToClient, state: TaskState
) -> dict[int, Vector]:
    """Put into a first round's broadcast where else the task may start; by the tasks' numbers.

    Args:
        federation: the run.
        learned: its other tasks.
        body: the broadcast.
        state: of the task that begins.
    """
    heads = federation.heads
    if state.round or not federation.plan.nearest or not heads.stays(state.number):
        return {}
    if body.train.hyperparameters.objective == pb.OBJECTIVE_LABEL_FREE:
        # Sure predictions are what training without labels makes, right or wrong.
        return {}
    others = learned
    if heads.earlier is not None:
        # The task whose head is kept is where the task starts as it is.
        others = [one for one in learned if one.number != heads.earlier.number]
    found = candidates(federation.start, others, heads.bits)
    body.train.candidates.extend(found)
    vectors = {one.number: one.vector for one in learned}
    return {candidate.task: vectors[candidate.task] for candidate in found}


def origin(update: pb.Update, state: TaskState, offered: Mapping[int, Vector]) -> Vector:
    """What the offsets of an update count from: ``[D]``.

    Args:
        update: from a client.
        state: of the task.
        offered: the candidates of its round, by their tasks.

    Raises:
        RefusedError: ``malformed``, one that was not offered.
    """
    if not update.started:
        return state.vector
    if update.started not in offered:
        raise RefusedError("malformed", f"started at task {update.started}, which was not offered")
    return offered[update.started]


def from_here(
    told: Mapping[int, Contribution], began: Mapping[int, Vector], state: TaskState
) -> dict[int, Contribution]:
    """Contributions whose offsets count from the task's own vector.

    A shift that only some clients' images resemble is another one, and moves nothing; what was
    learned on the way from it counts all the same.

    Args:
        told: by node; offsets count from where the client started.
        began: where that was, by node: ``[D]``.
        state: of the task.
    """
    away = [node for node in told if began[node] is not state.vector]
    if ENOUGH * len(away) < len(told):
        return dict(told)
    moved = {
        node: replace(told[node], offsets=told[node].offsets + (began[node] - state.vector))
        for node in away
    }
    return {**told, **moved}
