"""How far ``fit`` is, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from recast_core.recipe import Recipe

_SECONDS = 0.2


@contextmanager
def shown(
    optimizer: torch.optim.Optimizer, images: int, recipe: Recipe, progress: bool | None
) -> Iterator[None]:
    """Write steps, images a second and time left on one line while ``optimizer`` steps.

    Args:
        optimizer: whose steps are counted.
        images: of an epoch.
        recipe: epochs and batch.
        progress: write it; where ``None``, only on a terminal.
    """
    if not (sys.stderr.isatty() if progress is None else progress):
        yield
        return
    of_epoch = max(1, -(-images // recipe.batch))
    total, done = of_epoch * recipe.epochs, 0
    began, last = time.monotonic(), 0.0

    def write(end: str = "") -> None:
        spent = max(time.monotonic() - began, 1e-9)
        rate, left = done * images / of_epoch / spent, spent * (total - done) / max(done, 1)
        line = f"fit: {done}/{total} steps, {rate:,.0f} images/s, {left:.0f} s left"
        print(f"\r{line:<60}", end=end, file=sys.stderr, flush=True)

    def stepped(*_: object) -> None:
        nonlocal done, last
        done += 1
        if (now := time.monotonic()) - last >= _SECONDS:
            last = now
            write()

    hook = optimizer.register_step_post_hook(stepped)
    try:
        yield
        done = total  # steps that teach nothing are not taken
    finally:
        hook.remove()
        write("\n")
