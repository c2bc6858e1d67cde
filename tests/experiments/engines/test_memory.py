"""What a step frees stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
