"""What a crew of workers is, whatever starts them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from recast_core.settings import Settings

if TYPE_CHECKING:  # whose grid looks for a crew here
    from experiments.engines.folded.models import FoldedOptions


class CrewError(Exception):
    """Workers cannot go on: no client's fault, so that it ends the run and refuses nobody."""


# What torch, oneDNN and Python say where memory runs out, in exceptions of no class of their own.
_SHORT = ("allocate memory", "out of memory", "could not create a", "start new thread")

# A parcel whose worker was lost so often takes its workers with it.
TRIES = 3


@dataclass(frozen=True, eq=False)
class Item:
    """What every worker holds from when it is placed: a bank, a method, or a task's images.

    Attributes:
        kind: ``bank``, ``method`` or ``images``.
        name: an item with the same kind and name takes its place.
        fields: what is small.
        arrays: what is large, and is never changed.
    """

    kind: str
    name: str
    fields: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by."""
        return self.kind, self.name


@dataclass(frozen=True)
class Post:
    """What a worker is started with.

    Attributes:
        settings: of the run, with the device that this worker computes on.
        options: of the folded engine.
        clients: how many there are in all.
        threads: clients that it trains side by side on a CPU.
        path: where Python looks for modules; its own on another machine, where this is empty.
    """

    settings: Settings
    options: FoldedOptions
    clients: int
    threads: int
    path: Sequence[str]


class Crew(ABC):
    """Workers that all hold the same items. A worker that is lost is replaced, and its work done.

    Attributes:
        count: how many they are.
    """

    count: int

    @abstractmethod
    def place(self, item: Item) -> None:
        """Have every worker hold an item from now on, those that replace others too."""

    @abstractmethod
    def work(self, parcels: Sequence[bytes], done: Callable[[int], None]) -> list[bytes]:
        """What the workers make of a parcel each; ``done`` is told which are done.

        Raises:
            CrewError: memory ran out, or a parcel loses one worker after another.
        """

    @abstractmethod
    def close(self) -> None:
        """Let the workers go; what was placed is removed."""


def out_of_memory(count: int) -> CrewError:
    """The error of workers that need more memory than there is."""
    return CrewError(
        f"one of {count} workers ran out of memory: use fewer --workers, a smaller --batch, or a "
        "machine with more"
    )


def lost_too_often(count: int, how: str) -> CrewError:
    """The error of work that no worker survives."""
    return CrewError(
        f"{TRIES} workers in turn were lost over the same clients ({how}): if memory ran out, use "
        f"fewer than {count} --workers"
    )


def short_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: torch's allocator has none of its own."""
    return isinstance(error, MemoryError) or any(said in str(error) for said in _SHORT)
