"""The first round of a task without labels: clients tell their label mixes, and nothing trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from protos import recast_v1_pb2 as pb
from recast_core.label_mix import fleet_mix
from recast_core.start import Start
from recast_core.wire.codec import encode
from recast_core.wire.messages import RefusedError
from server.rounds.contribution import Contribution
from server.rounds.weights import limited


def check_mix(update: pb.Update, asked: bool) -> None:
    """Refuse a mix that was not asked for, that says nothing, or that comes with coefficients.

    Raises:
        RefusedError: ``malformed``.
    """
    if not asked:
        raise RefusedError("malformed", "a label mix that was not asked for")
    if update.coefficients or update.scale:
        raise RefusedError("malformed", "a label mix with coefficients")
    if not any(update.mix):
        raise RefusedError("malformed", "a label mix of nothing")


def nothing(start: Start, bits: int) -> bytes:
    """The coefficients of an update that moves nothing."""
    return encode(np.zeros(start.sent, np.float32), bits).data


def odd_mixes(told: Mapping[int, Contribution], classes: int) -> dict[int, str]:
    """Why what nodes contributed to a round that only listens is no mix like the others'.

    Where nobody tells one all clients are of before there were mixes, and there is nothing to say.

    Args:
        told: contributions by node.
        classes: of the task, which are taken where two numbers are told as often.
    """
    usual = _usual(told.values(), classes)
    if not usual:
        return {}
    return {
        node: f"a label mix of {len(one.mix)} classes, most clients tell of {usual}"
        if one.mix
        else "no label mix, which was asked for"
        for node, one in told.items()
        if len(one.mix) != usual
    }


def _usual(told: Iterable[Contribution], classes: int = 0) -> int:
    """The classes that most mixes are of, if in doubt ``classes``, else more; 0 of no mix."""
    counts = Counter(len(one.mix) for one in told if one.mix)
    return max(counts, key=lambda count: (counts[count], count == classes, count), default=0)


def mix_of(told: Mapping[int, Contribution], most: float) -> bytes:
    """The fleet's mix: of clients that tell of as many classes as most of them; empty of none.

    Args:
        told: contributions by node.
        most: times their median that a client's examples may count; 0 for no limit.
    """
    usual = _usual(told.values())
    mixes = [one for _, one in sorted(told.items()) if one.mix and len(one.mix) == usual]
    if not mixes:
        return b""
    return fleet_mix([one.mix for one in mixes], limited([one.examples for one in mixes], most))
