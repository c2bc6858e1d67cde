"""Methods: what trains of a model, what is sent, and how many bytes that is; one a file.

::

    model = method("lora").prepare(backbone)          # alone, as a baseline
    model = method("lora").prepare(attach(b, bank))   # on top of RECAST: both train, both are sent
"""

from __future__ import annotations

from recast_core.choices import unknown
from recast_core.errors import RecastError
from recast_core.methods.adaptformer import AdaptFormer
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.clr import Clr
from recast_core.methods.full import Full
from recast_core.methods.head_only import HeadOnly
from recast_core.methods.lora import Lora
from recast_core.methods.lora_xs import LoraXs
from recast_core.methods.norm_affine import NormAffine
from recast_core.methods.norm_groups import NormGroups
from recast_core.methods.piggyback import Piggyback
from recast_core.methods.recast import Recast
from recast_core.methods.tiny_lora import TinyLora
from recast_core.methods.train import train
from recast_core.methods.vera import Vera

_OWN: tuple[type[Method], ...] = (
    Recast, HeadOnly, NormGroups, NormAffine, TinyLora, LoraXs, Vera, Lora, AdaptFormer, Piggyback,
    Clr, Full,
)  # fmt: skip
# By name; ``register_method`` adds to it.
METHODS: dict[str, type[Method]] = {kind.name: kind for kind in _OWN}
# What the command line calls some of them.
_SHORT = {"head": "head-only", "norm": "norm-affine"}


def register_method(name: str, kind: type[Method]) -> None:
    """Make a method known by ``name``: to the settings of a run, and to every client of it.

    Raises:
        RecastError: another method has this name, or it cannot stand in a specification.
    """
    if not name or any(character in name for character in ": ,"):
        raise RecastError(f"{name!r} cannot name a method: leave out colons, commas and spaces")
    if METHODS.get(name, kind) is not kind or name in _SHORT:
        raise RecastError(f"there is a method {name!r} already: choose another name")
    METHODS[name] = kind


def method(name: str) -> Method:
    """The method of this name (one of ``METHODS``, or ``head`` and ``norm``) as it usually is.

    Raises:
        RecastError: an unknown name; offers a near one.
    """
    return _kind(name)()


def parse_method(spec: str, target: str = "attn") -> Method:
    """The method of a specification: ``NAME``, or ``NAME:SETTINGS`` as in ``lora:RANK:TARGET``.

    Args:
        spec: the specification.
        target: of a method that has one, where the specification does not say.

    Raises:
        RecastError: an unknown name, or settings that the method does not have.
    """
    name, _, settings = spec.partition(":")
    return _kind(name).parse(settings, target)


def _kind(name: str) -> type[Method]:
    known = METHODS.get(_SHORT.get(name, name))
    if known is None:
        raise RecastError(unknown("method", name, [*METHODS], _SHORT))
    return known


__all__ = [
    "METHODS",
    "AdaptFormer",
    "Clr",
    "Full",
    "HeadOnly",
    "Lora",
    "LoraXs",
    "Method",
    "MethodModel",
    "NormAffine",
    "NormGroups",
    "Piggyback",
    "Recast",
    "TinyLora",
    "Vera",
    "method",
    "parse_method",
    "register_method",
    "train",
]
