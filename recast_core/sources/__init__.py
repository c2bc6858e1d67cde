"""Where a bank's templates come from: one source a file."""

from __future__ import annotations

from recast_core.errors import RecastError
from recast_core.sources.base import Source
from recast_core.sources.closed_form import ClosedForm
from recast_core.sources.gradient import Gradient
from recast_core.sources.other_networks import OtherNetworks
from recast_core.sources.seeded import Seeded
from recast_core.sources.vae import Vae

# By name; ``register_source`` adds to it.
SOURCES: dict[str, type[Source]] = {
    "closed-form": ClosedForm,
    "gradient": Gradient,
    "vae": Vae,
    "seeded": Seeded,
    "task-vectors": OtherNetworks,
}


def register_source(name: str, kind: type[Source]) -> None:
    """Make a source known by ``name`` to every configuration of a bank.

    Raises:
        RecastError: another source has this name.
    """
    if SOURCES.get(name, kind) is not kind:
        raise RecastError(f"there is a source {name!r} already: choose another name")
    SOURCES[name] = kind


def source_kind(name: str) -> type[Source]:
    """The source of this name.

    Raises:
        RecastError: there is none.
    """
    if name not in SOURCES:
        raise RecastError(f"unknown source {name!r}: choose {', '.join(SOURCES)}")
    return SOURCES[name]


__all__ = [
    "SOURCES",
    "ClosedForm",
    "Gradient",
    "Seeded",
    "Source",
    "Vae",
    "register_source",
    "source_kind",
]
