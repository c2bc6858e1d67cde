"""From what a client has trained to its update: a chain of transforms, which others may extend.

A transform is called with offsets and with the rest of the chain, which makes an update of whatever
it is called with. What it passes on it may change before, and what came of it it may note after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from protos import recast_v1_pb2 as pb
from recast_core.choices import unknown
from recast_core.errors import RecastError
from recast_core.privacy.noise import Noise
from recast_core.wire.codec import Encoded, Vector, decode, encode, fitted
from recast_core.wire.rounding import at_random

if TYPE_CHECKING:
    from recast_core.wire.messages import Hyperparameters


class Unsaid(Protocol):
    """What a client remembers, between rounds, that its updates of a task did not say."""

    def applicable(self, broadcast: pb.Broadcast, count: int) -> Vector | None:
        """What to add to the update that answers ``broadcast``: float32 ``[count]``, or nothing."""

    def keep(self, broadcast: pb.Broadcast, before: Vector | None, after: Vector) -> None:
        """Remember what was left before the answer to ``broadcast`` and what it leaves."""


@dataclass(frozen=True, eq=False)
class Occasion:
    """Of what an update is one.

    Attributes:
        unsaid: by earlier updates; ``None`` for no error feedback.
        broadcast: that the update answers.
        hyper: the width, and how to round.
        seed: of this client, round and task; see ``client_seed``.
        noise: that hides the client; ``None`` for what nobody can repeat.
    """

    unsaid: Unsaid | None
    broadcast: pb.Broadcast
    hyper: Hyperparameters
    seed: int
    noise: Noise | None = None


Rest = Callable[[Vector], Encoded]
Transform = Callable[[Vector, Occasion, Rest], Encoded]
_MAKERS: dict[str, Callable[[str], Transform]] = {}


def register_transform(name: str, make: Callable[[str], Transform]) -> None:
    """Let the setting ``transforms`` name a transform, as ``NAME`` or ``NAME:ARGUMENT``.

    Server and clients need it under the same name.

    Args:
        name: without a colon, comma or space.
        make: from the argument, empty where there is none, to the transform; raises a
            ``RecastError`` for one that it cannot read.

    Raises:
        RecastError: another transform has the name.
    """
    if _MAKERS.setdefault(name, make) is not make:
        raise RecastError(f"transform {name!r} is registered already: give another name")


@lru_cache(maxsize=64)
def chain(spec: str) -> tuple[Transform, ...]:
    """The transforms of a specification: names in their order, by spaces or commas.

    Where it does not say so, what is left unsaid is added, and the sum is rounded, in the end.

    Raises:
        RecastError: an unknown name, one named twice, or rounding before the end.
    """
    words = spec.replace(",", " ").split()
    if "round" not in _names(words):
        words.append("round")
    if "error-feedback" not in _names(words):
        words.insert(_names(words).index("round"), "error-feedback")
    names = _names(words)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RecastError(f"transforms {spec!r} name {twice} twice: once is enough")
    if names[-1] != "round":
        raise RecastError(f"transforms {spec!r}: nothing can come after round, move it to the end")
    return tuple(_made(*word.partition(":")[::2]) for word in words)


def _names(words: list[str]) -> list[str]:
    return [word.partition(":")[0] for word in words]


def _made(name: str, argument: str) -> Transform:
    if name not in _MAKERS:
        said = unknown("transform", name, [*_MAKERS])
        raise RecastError(f"{said}, or load the plug-in that has it")
    return _MAKERS[name](argument)


def round_update(
    offsets: Vector,
    unsaid: Unsaid | None,
    broadcast: pb.Broadcast,
    hyper: Hyperparameters,
    seed: int,
    noise: Noise | None = None,
) -> Encoded:
    """What an update says of offsets ``[D]``, float32, from the broadcast; see ``Occasion``.

    Raises:
        CodecError: NaN or infinity.
        RecastError: no such transform, or what is left unsaid cannot be written.
    """
    occasion = Occasion(unsaid, broadcast, hyper, seed, noise)
    return _rest(chain(hyper.transforms), 0, occasion)(offsets)


def _rest(transforms: tuple[Transform, ...], place: int, occasion: Occasion) -> Rest:
    def rest(offsets: Vector) -> Encoded:
        return transforms[place](offsets, occasion, _rest(transforms, place + 1, occasion))

    return rest


def _clip(limit: float, offsets: Vector, rest: Rest) -> Encoded:
    norm = float(np.linalg.norm(offsets.astype(np.float64)))
    # Offsets that are not finite are the codec's to refuse.
    return rest(offsets * np.float32(limit / norm) if limit < norm < float("inf") else offsets)


def _make_clip(argument: str) -> Transform:
    """Offsets longer than a limit are shortened to it."""
    try:
        limit = float(argument)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise RecastError(f"cannot clip to {argument!r}: give a length, such as clip:0.5")
    return lambda offsets, occasion, rest: _clip(limit, offsets, rest)


def _error_feedback(offsets: Vector, occasion: Occasion, rest: Rest) -> Encoded:
    """Error feedback (Karimireddy et al., ICML 2019), where the run has it."""
    unsaid = occasion.unsaid
    if unsaid is None:
        return rest(offsets)
    residual = unsaid.applicable(occasion.broadcast, len(offsets))
    wanted = offsets if residual is None else offsets + residual
    encoded = rest(wanted)
    said = decode(encoded, len(wanted), occasion.hyper.bits)
    unsaid.keep(occasion.broadcast, residual, wanted - said)
    return encoded


def _round(offsets: Vector, occasion: Occasion, rest: Rest) -> Encoded:
    """The end of every chain."""
    hyper = occasion.hyper
    if not hyper.stochastic:
        return encode(offsets, hyper.bits)
    encoded = at_random(offsets, hyper.bits, occasion.seed)
    return encoded if occasion.unsaid is None else fitted(encoded, offsets, hyper.bits)


def _plain(name: str, transform: Transform) -> Callable[[str], Transform]:
    def make(argument: str) -> Transform:
        if argument:
            raise RecastError(f"{name} takes no argument, and was given {argument!r}")
        return transform

    return make


register_transform("clip", _make_clip)
register_transform("error-feedback", _plain("error-feedback", _error_feedback))
register_transform("round", _plain("round", _round))
