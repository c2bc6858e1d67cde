"""Donor tasks by the dozen: class subsets of data that no tested task has, half of them shifted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.data import load_dataset
from experiments.studies.glyphs import augment, plain, render_glyphs
from recast_core.errors import RecastError
from recast_core.shifts.compositions import allowed, compositions
from recast_core.task_spec import TaskSpec, parse_task

LETTERS = "letters"
_VIEWS = 4
_STREAM = 51


def letters(folder: Path, seed: int = 0) -> TaskSpec:
    """Letters of many scripts as a file of the folder, some views of each: no digit among them.

    Needs the ``glyphs`` extra.
    """
    glyphs = render_glyphs()
    masters = torch.from_numpy(glyphs.images).float().div(255)
    generator = torch.Generator().manual_seed(seed)
    views = torch.cat([augment(masters, generator) for _ in range(_VIEWS)])
    path = folder / f"{LETTERS}.npz"
    np.savez(
        path,
        x_train=_grey(views),
        y_train=np.tile(glyphs.labels, _VIEWS),
        x_test=_grey(plain(masters)),
        y_test=glyphs.labels,
        classes=np.array([f"U+{ord(character):04X}" for character in glyphs.characters]),
    )
    return parse_task(f"{LETTERS}=npz:{path}")


def _grey(images: Tensor) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = images[:, 0].mul(255).round().to(torch.uint8).numpy()
    return found


def drawn(
    sources: Sequence[TaskSpec],
    count: int,
    classes: int,
    size: int,
    seed: int,
    without: Collection[str] = (),
) -> list[TaskSpec]:
    """So many donors, of one source after the other.

    Args:
        sources: tasks without a class range.
        count: of donors; of two counts, the smaller's are the first of the larger's.
        classes: of a donor, neighbours; all where the source has no more.
        size: of the backbone's images.
        seed: of what is drawn.
        without: families of shifts that none of them has.

    Raises:
        RecastError: a source with a class range, or an unknown family.
    """
    random = np.random.default_rng([seed, _STREAM])
    shifted = iter(compositions(count, allowed((), without, grey=True), seed))
    found = []
    for place in range(count):
        source = sources[place % len(sources)]
        if source.class_range is not None:
            raise RecastError(f"{source}: donors are drawn of whole data, leave the range out")
        last = len(load_dataset(source, size).classes) - classes
        first = int(random.integers(max(last, 0) + 1))
        bare = place // len(sources) % 2 == 0
        shifts = () if bare else tuple(str(each) for each in next(shifted))
        found.append(
            replace(
                source,
                name=f"{source.name}-{place}",
                class_range=(first, first + classes - 1) if last > 0 else None,
                transforms=(*source.transforms, *shifts),
            )
        )
    return found
