"""What a step frees stays with the process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from client.data import load_dataset
from experiments.engines.folded import data
from recast_core.settings import Settings

# What a worker's activations are like: megabytes of several sizes, freed and taken again.
_PROBE = """
import resource, threading, torch
from experiments.engines.folded.memory import keep_freed
keep_freed()
def faults():
    for _ in range(20):
        kept = [torch.ones(size) for size in (500_000, 260_000, 130_000, 3_000_000) * 4]
        del kept
    seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
seen = []
thread = threading.Thread(target=lambda: (faults(), faults()))
thread.start()
thread.join()
print(seen[1] - seen[0])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_what_a_worker_frees_is_not_faulted_in_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True
    )
    # Without, a hundred thousand.
    assert int(done.stdout) < 2000


def test_images_of_very_many_nodes_are_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    load_dataset.cache_clear()
    few = data.load_task("digits", 16, 5, Settings())
    assert load_dataset.cache_info().currsize == 1
    monkeypatch.setattr(data, "MANY", 5)
    many = data.load_task("digits", 16, 5, Settings())
    assert load_dataset.cache_info().currsize == 0
    assert bool((few.images == many.images).all())
    pairs = zip(few.division.arrays().values(), many.division.arrays().values(), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
