"""Waiting for clients before a round, and why there may be none."""

from __future__ import annotations

import logging
import math
import time

from flwr.serverapp import Grid

from recast_core.errors import RecastError
from recast_core.secure.members import FEWEST
from recast_core.text import how_many
from server.rounds.agenda import Agenda
from server.rounds.federation import Federation
from server.rounds.state import TaskState

LOOK_SECONDS = 1.0
_UNLEARNABLE = (
    "no client has %s for task %r%s: use fewer clients, a less skewed partition, or data folders "
    "that hold the task"
)
logger = logging.getLogger("recast.server")


class UnlearnableError(RecastError):
    """Nobody who is there has enough images of a task to learn it."""


def await_return(grid: Grid, federation: Federation, agenda: Agenda) -> None:
    """Give those who took part time to find the server again: accuracy is over all of them."""
    asked = {state.number for state in agenda.unevaluated()}
    took_part = {
        share.client for share in federation.registry.shares(federation.run) if share.task in asked
    }
    plan = federation.plan
    federation.roster.await_nodes(grid, took_part, min(plan.deadline, 5 * plan.patience))


def await_clients(grid: Grid, federation: Federation, agenda: Agenda) -> None:
    """Greet who is there, and wait for a while where that is not enough to go on.

    Before the first round every task that must be learned needs a client, so that a mistake
    shows before anyone's time is spent; later one task is enough. Fewer than hide each other are
    not greeted, so that no bank is sent for a run that cannot be.

    Raises:
        UnlearnableError: nobody who came has enough images of a task.
        RecastError: nobody came, or too few, or all were refused.
    """
    ends, said = math.inf, False
    while True:
        if not (few := _too_few(grid, federation)):
            federation.roster.refresh(grid)
        # Greeting those who are there takes none of the time that others are given to come.
        ends = min(ends, time.monotonic() + federation.plan.patience)
        lacking = agenda.unlearnable()
        if agenda.active() if agenda.began else not lacking:
            return
        if time.monotonic() >= ends:
            break
        if lacking and not said and (few or federation.roster.lacking(lacking[0].number)):
            text = "nobody here can learn task %s yet: waiting %.0f s for other clients"
            logger.warning(text, lacking[0].name, federation.plan.patience)
            said = True
        time.sleep(LOOK_SECONDS)
    if lacking and few:
        raise RecastError(_too_few_to_hide(few, f"{lacking[0].name!r} at the most"))
    if lacking and not federation.roster.nodes:
        raise RecastError(
            "no client is ready: start clients, and look for refusals in the log above"
        )
    if lacking:
        raise _unlearnable(federation, lacking[0])


def _too_few(grid: Grid, federation: Federation) -> int:
    """How many clients are there, where nobody was greeted yet and they cannot hide each other."""
    if not federation.plan.secure or federation.roster.nodes:
        return 0
    there = len(list(grid.get_node_ids()))
    return there if there < FEWEST else 0


def _too_few_to_hide(clients: int, task: str) -> str:
    return (
        f"{how_many(clients, 'client')} can learn task {task}, and a hidden sum needs at least "
        f"{FEWEST}: have more clients with images of it, or leave --secure-aggregation out"
    )


def _unlearnable(federation: Federation, state: TaskState) -> RecastError:
    """Why nobody can learn a task, in the words of a client that said so, or too few can."""
    if able := federation.able(state.number):
        return RecastError(_too_few_to_hide(able, repr(state.name)))
    for refusal in federation.ledger.refusals_since():
        if refusal.task == state.name and refusal.reason == "classes":
            return RecastError(f"no client can learn task {state.name!r}: {refusal.detail}")
    lacks = federation.roster.lacking(state.number)
    if len(set(lacks)) == 1 and lacks[0][0] == "failed":
        return RecastError(f"no client can learn task {state.name!r}: {lacks[0][1]}")
    said = ""
    if lacks:
        code, detail = lacks[-1]
        part = f"{len(lacks)} take" if len(lacks) > 1 else "1 takes"
        said = f" ({part} no part, the last said: {code}: {detail})"
    enough = "training images" if federation.heads.stay else "two classes of training images"
    return UnlearnableError(_UNLEARNABLE % (enough, state.name, said))


def say_unable(federation: Federation, state: TaskState) -> None:
    """Say how many clients have images of a task and train none of it: all are of one class."""
    there = [share for _, share in federation.shares(state.number) if share.train_examples]
    unable = sum(not federation.heads.can_train(state.number, share) for share in there)
    if unable:
        logger.warning(
            "task %s: %d of %s %s images of one class only and cannot train",
            state.name, unable, how_many(len(there), "client"), "has" if unable == 1 else "have",
        )  # fmt: skip
