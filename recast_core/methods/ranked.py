"""What methods of low rank have in common: a rank, and whose weights they move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from recast_core.errors import RecastError
from recast_core.methods.base import Method


@dataclass(frozen=True)
class Ranked(Method):
    """A method ``NAME``, ``NAME:RANK`` or ``NAME:RANK:TARGET``; its fields' defaults are usual.

    Attributes:
        rank: r.
        target: a preset or patterns, as in ``RecastConfig``; ``conv`` for a ResNet.
    """

    rank: int = 4
    target: str | tuple[str, ...] = "attn"
    foldable: ClassVar[bool] = True

    @classmethod
    def parse(cls, settings: str, target: str) -> Self:
        """See ``Method``."""
        rank, told = count_and_target(cls.name, settings, str(cls.rank))
        return cls(rank, told or target)

    @property
    def canonical(self) -> str:
        """With rank and target."""
        return f"{self.name}:{self.rank}:{joined(self.target)}"


def joined(target: str | tuple[str, ...]) -> str:
    """A target as a specification has it."""
    return target if isinstance(target, str) else ",".join(target)


def count_and_target(name: str, settings: str, usual: str) -> tuple[int, str]:
    """What ``RANK`` or ``RANK:TARGET`` says; the usual rank and no target where it says nothing.

    Raises:
        RecastError: a rank that is no whole number from 1.
    """
    rank, _, told = (settings or usual).partition(":")
    if not (rank.isascii() and rank.isdigit() and 0 < int(rank) < 100_000):
        raise RecastError(f"method {name}:{settings} has rank {rank!r}: give a whole number from 1")
    return int(rank), told
