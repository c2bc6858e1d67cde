"""Whether a client's answer may be used: pure functions that accept or refuse."""

from __future__ import annotations

import numpy as np

from protos import recast_v1_pb2 as pb
from recast_core.heads import Statistics
from recast_core.start import Start
from recast_core.wire.codec import Vector
from recast_core.wire.head_bytes import unpack_statistics
from recast_core.wire.messages import RefusedError, from_update
from server.exchange.share import Share
from server.rounds.aggregation import Contribution

# What 16 bits hold.
MAX_OFFSET = 65504.0


def check_update(
    start: Start,
    update: pb.Update,
    asked: int | None,
    share: Share | None,
    bits: int,
    origin: Vector | None = None,
) -> Contribution:
    """What an update contributes.

    Args:
        start: of the run.
        update: from a client.
        asked: the round that this client was asked for in this task, ``None`` for none.
        share: what the client announced of the task.
        bits: width of the numbers in this round.
        origin: what the update counts from, ``[D]``, as an offset from the bank's start; that
            where ``None``.

    Raises:
        RefusedError: with the reason that the ledger counts.
    """
    if asked is None or share is None:
        raise RefusedError("unknown-task", f"task {update.task} was not asked of this client")
    if asked != update.round:
        raise RefusedError("stale-round", f"round {update.round} came in round {asked}")
    if update.examples > share.train_examples:
        raise RefusedError(
            "too-many-examples",
            f"{update.examples} examples, {share.train_examples} were announced",
        )
    offsets = from_update(start, update, bits)
    reached = offsets if origin is None else origin + offsets
    # A mean of vectors that a broadcast can carry is one too, so nobody's numbers end the run.
    if not bool((np.abs(reached) <= MAX_OFFSET).all()):
        raise RefusedError("out-of-range", f"coefficients beyond {MAX_OFFSET:g} from the start")
    return Contribution(offsets, update.examples)


def check_evaluation(
    start: Start, found: pb.Evaluation, round_: int | None, share: Share | None
) -> None:
    """Accept an evaluation of round ``round_`` (``None``: of a task that was not asked).

    Raises:
        RefusedError: with the reason that the ledger counts.
    """
    if found.bank != start.prefix:
        raise RefusedError("wrong-bank", "an evaluation with another bank")
    if round_ is None or share is None:
        raise RefusedError("unknown-task", f"of task {found.task}")
    if found.round != round_:
        raise RefusedError("stale-round", f"of round {found.round}")
    counts = (found.correct, found.head_only_correct, found.deployed_correct)
    if max(*counts, found.local_head_correct, found.chosen_correct) > found.examples:
        raise RefusedError("malformed", "more correct than examples")
    if found.examples > share.test_examples:
        raise RefusedError("too-many-examples", f"{found.examples}")


def check_head(
    start: Start,
    found: pb.HeadStatistics,
    task: int,
    share: Share | None,
    kind: str,
    classes: int,
    width: int,
) -> Statistics:
    """What a client's statistics contribute to a head; the caller knows which rounds were asked.

    Args:
        start: of the run.
        found: from a client.
        task: that was asked for.
        share: what the client announced of the task.
        kind: that was asked for.
        classes: of the task.
        width: of the backbone's features.

    Raises:
        RefusedError: with the reason that the ledger counts.
    """
    if found.bank != start.prefix:
        raise RefusedError("wrong-bank", "head statistics with another bank")
    if share is None or found.task != task:
        raise RefusedError("unknown-task", f"of task {found.task}")
    statistics = unpack_statistics(kind, found.content, classes, width)
    examples = int(statistics["counts"].long().sum())
    if examples > share.train_examples:
        raise RefusedError(
            "too-many-examples", f"{examples} examples, {share.train_examples} were announced"
        )
    return statistics
