"""What is known of clients' training losses: told in updates, or heard within this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

from protos import recast_v1_pb2 as pb
from recast_core.wire.loss import unpack_loss
from recast_core.wire.messages import RefusedError
from server.record.rows import Loss
from server.rounds.contribution import Contribution


@runtime_checkable
class Overhearing(Protocol):
    """A grid whose clients are in this process, where what they learn is known without a byte."""

    def take_losses(self) -> Mapping[tuple[int, int, int], float]:
        """What clients learned since this was last called: by node, task and round."""


def told_loss(update: pb.Update, *, asked: bool) -> float | None:
    """The loss in an update, ``None`` where it has none.

    Raises:
        RefusedError: ``malformed``, one that was not asked for, or that is none.
    """
    if update.loss and not asked:
        raise RefusedError("malformed", "a loss that was not asked for")
    return unpack_loss(update.loss)


def with_heard(
    grid: object, found: Mapping[int, Mapping[int, Contribution]], rounds: Mapping[int, int]
) -> dict[int, dict[int, Contribution]]:
    """Contributions by node, by task, with the losses that ``grid`` has heard and nobody told.

    ``rounds`` are those that the tasks are in.
    """
    heard = grid.take_losses() if isinstance(grid, Overhearing) else {}
    made = {task: dict(contributions) for task, contributions in found.items()}
    for (node, task, round_), loss in heard.items():
        one = made.get(task, {}).get(node)
        if one is not None and one.loss is None and round_ == rounds[task]:
            made[task][node] = replace(one, loss=loss)
    return made


def losses_of(contributions: Mapping[int, Contribution]) -> dict[str, Loss]:
    """What is to be recorded, by client."""
    return {
        str(node): Loss(one.loss, one.examples)
        for node, one in contributions.items()
        if one.loss is not None
    }


def mean_loss(losses: Mapping[str, Loss]) -> float | None:
    """The mean over all images; ``None`` where no loss is known."""
    images = sum(one.examples for one in losses.values())
    return sum(one.loss * one.examples for one in losses.values()) / images if images else None
