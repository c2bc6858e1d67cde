"""What a client without labels tells and is told of label mixes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from torch import Tensor

from client.discreet import is_discreet
from client.holdings import D, Holdings, M
from client.turn import Guess, Work
from protos import recast_v1_pb2 as pb
from recast_core.label_mix import expected_mix, mean_prediction, pack_mix, unpack_mix
from recast_core.start import Start
from recast_core.statistics import spread_choice
from recast_core.wire.kept_head import Kept
from recast_core.wire.messages import RefusedError


def own_mix(model: M, data: D, kept: Kept, local: bool) -> Generator[Work[M, D], Any, Tensor]:
    """The mean prediction over this client's images, with the vector of the classifier.

    Args:
        model: with the deployed classifier.
        data: of the client.
        kept: the classifier.
        local: whether BatchNorms use this client's own images.
    """
    chosen = spread_choice(len(data.labelled))
    logits: Tensor = yield Guess(model, data, kept.vector, chosen, chosen if local else None, kept)
    return mean_prediction(logits)


def wanted_mix(
    broadcast: pb.Broadcast, me: Holdings[M, D], model: M, data: D, kept: Kept, local: bool
) -> Generator[Work[M, D], Any, tuple[bytes, Tensor | None]]:
    """What to tell of this client's mix, and the mix that its predictions should come to.

    Returns:
        A packed mix where the broadcast asks for nothing else; and what the fleet's says of this
        client's images, ``None`` where nothing is known of the fleet's.

    Raises:
        RefusedError: a mix is asked of a client that tells nothing without noise, or in a sum.
    """
    if broadcast.wants_mix and (is_discreet(me) or me.settings.secure_aggregation):
        raise RefusedError("malformed", "a round that asks for a label mix, which nothing hides")
    if not (broadcast.wants_mix or broadcast.mix):
        return b"", None
    own: Tensor = yield from own_mix(model, data, kept, local)
    if broadcast.wants_mix:
        return pack_mix(own), None
    return b"", expected_mix(own, unpack_mix(broadcast.mix, len(own)))


def listened(start: Start, broadcast: pb.Broadcast, examples: int, mix: bytes) -> pb.Update:
    """The update of a round in which nothing was trained: a mix, and no coefficients."""
    return pb.Update(
        bank=start.prefix,
        task=broadcast.task,
        round=broadcast.round,
        examples=examples,
        mix=mix,
    )
