"""How many clients train at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from recast_core.errors import RecastError

Item = TypeVar("Item")

# Images in one step. On a CPU more than this leaves the cache, where each is of the size of the
# default network's, 64 kB; of smaller ones there are as many as have the same size together. On an
# H200 1024 to 16000 rows cost the same per client within a tenth.
CPU_ROWS = 128
CPU_BYTES = CPU_ROWS << 16
MOST_CPU_ROWS = 1024
# Of a step: with fewer one thread is faster than several.
THREAD_BYTES = 1 << 20
CUDA_ROWS = 8192
# Of the free memory: the rest is for what the allocator cannot reuse.
_SHARE = 0.8
_PROBE = 4
_CHUNKS_PER_CORE = 4


@dataclass
class Chunking:
    """What was chosen, and what it took.

    Attributes:
        size: clients in a chunk; ``None`` until it is chosen.
        halved: how often memory ran out.
    """

    size: int | None = None
    halved: int = 0


def rows_at_once(bytes_each: int) -> int:
    """Images in one step on a CPU that take so many bytes each where training begins."""
    return min(MOST_CPU_ROWS, max(CPU_ROWS, CPU_BYTES // max(1, bytes_each)))


def useful_threads(workers: int, step_bytes: int) -> int:
    """How many of so many threads help with steps of so many bytes.

    Products of microseconds leave two threads waiting for each other's turn in Python: with steps
    of 128 kB two take half as long again as one.
    """
    return min(workers, 1) if step_bytes < THREAD_BYTES else workers


def equal_chunks(
    sizes: Sequence[tuple[int, int, bool, int]], batch: int, workers: int, most: int = CPU_ROWS
) -> list[list[int]]:
    """Which clients train at once on a CPU: only such as have equally many images and classes.

    Nothing is then padded, and every sum has as many terms as for the client alone: its result is
    the same to the last bit whoever else is there.

    Args:
        sizes: of each client images, classes, whether its BatchNorms take its own images, and
            images without a label.
        batch: images per step of a client.
        workers: chunks that are in work at once.
        most: images in one step, see ``rows_at_once``.
    """
    alike: dict[tuple[int, int, bool, int], list[int]] = {}
    for index, kind in enumerate(sizes):
        alike.setdefault(kind, []).append(index)
    # A few chunks for each core also where clients are few.
    fair = max(1, len(sizes) // (_CHUNKS_PER_CORE * max(1, workers)))
    chunks = []
    # The longest first: the cores then end together.
    for kind in sorted(alike, reverse=True):
        members, size = alike[kind], kind[0]
        rows = -(-size // max(1, -(-size // batch)))
        step = min(fair, max(1, most // rows))
        chunks += [members[at : at + step] for at in range(0, len(members), step)]
    return chunks


def choose(device: torch.device, rows: int, clients: int, probe: Callable[[int], None]) -> int:
    """The largest number of clients worth training at once on a GPU.

    Args:
        device: where.
        rows: images of one client in a step.
        clients: how many there are.
        probe: trains this many clients for one step, to see what memory that takes.
    """
    limit = max(1, min(clients, CUDA_ROWS // rows))
    if limit == 1:
        return 1
    few = min(_PROBE, limit)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    probe(few)
    torch.cuda.synchronize(device)
    taken = (torch.cuda.max_memory_allocated(device) - before) / few
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + unused
    fitting = max(1, min(limit, int(_SHARE * free / max(taken, 1))))
    # Chunks of one size: the last is then no remnant.
    return -(-clients // -(-clients // fitting))


def in_chunks(
    items: Sequence[Item], chunking: Chunking, work: Callable[[Sequence[Item]], None]
) -> None:
    """Do ``work`` on runs of at most ``chunking.size`` items, halved where memory runs out.

    Raises:
        RecastError: one item alone does not fit.
    """
    assert chunking.size is not None
    start = 0
    while start < len(items):
        part = items[start : start + chunking.size]
        try:
            work(part)
        except torch.OutOfMemoryError as error:
            if len(part) == 1:
                raise RecastError(
                    "one client does not fit into the device's memory: use a smaller batch"
                ) from error
            chunking.size = max(1, len(part) // 2)
            chunking.halved += 1
        else:
            start += len(part)
            continue
        # Outside the handler, whose traceback would keep the chunk's tensors alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
