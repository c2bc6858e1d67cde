"""What people call the clients, whose own ids are long numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from flwr.serverapp import Grid

# Ids from here on are Flower's random numbers; smaller ones are those of simulated clients.
_LONG = 10**9


@runtime_checkable
class Naming(Protocol):
    """A grid that knows its clients by name."""

    def names(self) -> dict[int, str]:
        """The name of each node that ever joined."""


def names_of(grid: Grid, numbers: Mapping[int, int]) -> dict[str, str]:
    """Names by node id, as the ledger has it; those without one are absent.

    Args:
        grid: that may know them.
        numbers: what each node said that its own number is, which names a node of Flower's.
    """
    if isinstance(grid, Naming):
        return {str(node): name for node, name in grid.names().items()}
    return {
        str(node): f"client {number}"
        for node, number in numbers.items()
        if node >= _LONG and 0 < number < _LONG
    }
