"""One piece of work for each core: small products gain little from several cores each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from recast_core.pulse import Abandoned, ending_with

Item = TypeVar("Item")
Result = TypeVar("Result")
State = TypeVar("State")


def on_each_core(
    items: Sequence[Item],
    workers: int,
    state: Callable[[], State],
    work: Callable[[State, Item], Result],
) -> Iterator[Result]:
    """``work`` on every item, results in order.

    Args:
        items: the work.
        workers: threads, each of which has one core for its products and makes a ``state`` of its
            own; with 0 the work is done here, with all the threads that torch has.
        state: called once in each thread.
        work: what it finds must not depend on which thread had the item.

    Raises:
        BaseException: the first that ``work`` raised, or an interrupt; items that have not begun
            are left out, and those in work end at their next batch (``recast_core.pulse``).
    """
    if not workers:
        here = state()
        for item in items:
            yield work(here, item)
        return
    own = threading.local()
    stop = threading.Event()

    def start() -> None:
        torch.set_num_threads(1)
        own.state = state()

    def run(item: Item) -> Result | None:
        if stop.is_set():
            return None
        try:
            with ending_with(stop):
                return work(own.state, item)
        except Abandoned:
            return None

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(min(workers, len(items)), initializer=start) as pool:
            waiting = [pool.submit(run, item) for item in items]
            try:
                for future in waiting:
                    yield future.result()  # type: ignore[misc]  # None only after a stop
            finally:
                stop.set()
    finally:
        torch.set_num_threads(before)
