"""Methods: what trains of a model, what is sent, and how many bytes that is; one a file.

::

    model = method("lora").prepare(backbone)          # alone, as a baseline
    model = method("lora").prepare(attach(b, bank))   # on top of RECAST: both train, both are sent
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from recast_core.errors import RecastError
from recast_core.methods.adaptformer import AdaptFormer
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.clr import Clr
from recast_core.methods.full import Full
from recast_core.methods.head_only import HeadOnly
from recast_core.methods.lora import Lora
from recast_core.methods.norm_affine import NormAffine
from recast_core.methods.piggyback import Piggyback
from recast_core.methods.recast import Recast
from recast_core.methods.train import train

_METHODS: dict[str, Callable[[], Method]] = {
    "recast": Recast,
    "head-only": HeadOnly,
    "norm-affine": NormAffine,
    "lora": Lora,
    "adaptformer": AdaptFormer,
    "piggyback": Piggyback,
    "clr": Clr,
    "full": Full,
}
# What the command line calls some of them.
_SHORT = {"head": "head-only", "norm": "norm-affine"}
METHODS = tuple(_METHODS)


def method(name: str) -> Method:
    """The method of this name (``METHODS``, or ``head`` and ``norm``) with its usual settings.

    Raises:
        RecastError: an unknown name; offers a near one.
    """
    known = _METHODS.get(_SHORT.get(name, name))
    if known is None:
        near = difflib.get_close_matches(name, [*_METHODS, *_SHORT], n=1, cutoff=0.0)[0]
        raise RecastError(
            f"unknown method {name!r}: choose {', '.join(_METHODS)} (did you mean {near}?)"
        )
    return known()


def parse_method(spec: str, target: str = "attn") -> Method:
    """The method of a specification: a name, or ``lora[:RANK[:TARGET]]``.

    Args:
        spec: the specification.
        target: of LoRA, where the specification does not say.

    Raises:
        RecastError: an unknown name, or settings that the method does not have.
    """
    name, *rest = spec.split(":", 2)
    if name != "lora":
        if rest:
            raise RecastError(f"method {spec!r}: only lora has settings, lora:RANK:TARGET")
        return method(name)
    rank, its_target = (*rest, *("4", target)[len(rest) :])
    if not (rank.isascii() and rank.isdigit() and len(rank) < 6):
        raise RecastError(f"method {spec!r} has rank {rank!r}: give a whole number from 1")
    return Lora(rank=int(rank), target=its_target)


def canonical(spec: str, target: str = "attn") -> str:
    """The one way to write a specification, with everything that it depends on.

    Raises:
        RecastError: as ``parse_method``.
    """
    found = parse_method(spec, target)
    return f"lora:{found.rank}:{found.target}" if isinstance(found, Lora) else found.name


__all__ = [
    "METHODS",
    "AdaptFormer",
    "Clr",
    "Full",
    "HeadOnly",
    "Lora",
    "Method",
    "MethodModel",
    "NormAffine",
    "Piggyback",
    "Recast",
    "canonical",
    "method",
    "parse_method",
    "train",
]
