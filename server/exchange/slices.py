"""Exchanges with very many clients, a slice of them after another, where the grid allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Protocol, TypeVar, runtime_checkable

from flwr.app import Message
from flwr.serverapp import Grid

from server.exchange.collect import Collector

T = TypeVar("T")


@runtime_checkable
class Immediate(Protocol):
    """A grid that answers while it is asked: nobody has to wait for anybody.

    Attributes:
        at_once: messages that it likes to be given together.
    """

    at_once: int


def slices(grid: Grid, items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of what ``grid`` takes at once; all in one for a grid that does not say.

    There is one list, which is empty, where there are no items.
    """
    left = iter(items)
    if not isinstance(grid, Immediate):
        yield list(left)
        return
    yield list(islice(left, grid.at_once))
    for first in left:
        yield [first, *islice(left, grid.at_once - 1)]


def ask(
    collector: Collector,
    grid: Grid,
    messages: Iterable[Message],
    useful: Callable[[Message], bool] | None = None,
    *,
    hurry: bool = True,
) -> Iterable[Message]:
    """As ``Collector.ask``. Messages are made, and answers read, a slice at a time if possible.

    A million messages and their answers take ten gigabytes, if all are there at once.
    """
    if not isinstance(grid, Immediate):
        return collector.ask(grid, messages, useful, hurry=hurry)
    return chain.from_iterable(
        collector.ask(grid, part, useful, hurry=hurry) for part in slices(grid, messages)
    )
