"""How many clients train at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from recast_core.errors import RecastError

Item = TypeVar("Item")

# Images in one step. On a CPU more than this leaves the cache, and results must not depend on the
# machine's load, so it is a constant; on an H200 1024 to 16000 rows cost the same
# per client within a tenth.
CPU_ROWS = 128
CUDA_ROWS = 8192
# Of the free memory: the rest is for what the allocator cannot reuse.
_SHARE = 0.8
_PROBE = 4


@dataclass
class Chunking:
    """What was chosen, and what it took.

    Attributes:
        size: clients in a chunk; ``None`` until it is chosen.
        halved: how often memory ran out.
    """

    size: int | None = None
    halved: int = 0


def choose(device: torch.device, rows: int, clients: int, probe: Callable[[int], None]) -> int:
    """The largest number of clients worth training at once.

    Args:
        device: where.
        rows: images of one client in a step.
        clients: how many there are.
        probe: trains this many clients for one step, to see what memory that takes.
    """
    if device.type != "cuda":
        return max(1, min(clients, CPU_ROWS // rows))
    limit = max(1, min(clients, CUDA_ROWS // rows))
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
