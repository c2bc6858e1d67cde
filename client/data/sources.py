"""From a task's specification to its arrays."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client.data.arrays import Dataset, Images, Labels, stratified_split
from client.data.corrupted import load_corrupted
from client.data.folder import folder_classes, load_folder
from client.data.npz import load_npz, npz_classes
from client.data.odd_images import tell_doubts
from client.data.saying import say
from client.data.torchvision_data import load_torchvision
from client.data.transforms import Part, apply_transforms
from recast_core.classes import alike, some
from recast_core.errors import RecastError
from recast_core.extras import needed
from recast_core.shifts.drift import at_round
from recast_core.task_spec import TaskSpec, parse_task

_PART_SEED = 50

logger = logging.getLogger("recast.data")


def default_root() -> Path:
    """Return where downloads go: $RECAST_DATA, or ~/.cache/recast/data."""
    return Path(os.environ.get("RECAST_DATA") or "~/.cache/recast/data").expanduser()


@lru_cache(maxsize=32)
def load_dataset(
    spec: TaskSpec,
    size: int,
    seed: int = 0,
    root: Path | None = None,
    *,
    skip_unreadable: bool = False,
) -> Dataset:
    """Load a task's images and labels; the same arguments give the same object.

    Args:
        spec: which task; where its images drift they are those of the last round, unless `at_round`
            has been there before.
        size: side in pixels. Decoded images (folder, torchvision) that vary in size or whose
            shorter side exceeds `size` are scaled and centre-cropped to it; the arrays of digits
            and npz files, and smaller images of one size, stay as they are.
        seed: of the 80/20 split of data that come without one, of noise and of shifts. It is part
            of the task: keep it when only the run's seed changes. The split of `digits` is always
            seed 0.
        root: folder of torchvision's downloads; None: `default_root()`.
        skip_unreadable: of a folder, go on without images that cannot be read.

    Returns:
        The data set; with a class range only the images of these classes, labels unchanged; with a
        part only that part of the training images.

    Raises:
        RecastError: data absent, unreadable, or without images in the class range.
    """
    if size < 1:
        raise RecastError(f"image size {size}: use at least 1 pixel")
    spec = at_round(spec, 0, 1)
    source = _load_source(spec, size, seed, root, skip_unreadable)
    x_train, y_train, kept = _select(source.x_train, source.y_train, "train", spec, source, seed)
    x_test, y_test, kept_test = _select(source.x_test, source.y_test, "test", spec, source, seed)
    groups, test_groups = source.groups_train, source.groups_test
    return Dataset(
        x_train,
        y_train,
        x_test,
        y_test,
        source.classes,
        None if groups is None else groups[kept],
        None if test_groups is None else test_groups[kept_test],
        source.grey_bits,
    )


def forget_datasets() -> None:
    """Drop what was loaded: whoever has copied what it needs would hold all images twice."""
    load_dataset.cache_clear()


def known_classes(source: str) -> tuple[str, ...] | None:
    """The class names of a task whose data lie on this machine, without reading an image.

    Args:
        source: a DATA specification.

    Returns:
        The names in the order of their ids; None where the data are not here, have no names that
        can be had without loading them, or cannot be read.
    """
    try:
        data = parse_task(source).data
        kind, _, path = data.partition(":")
        if data == "digits":
            return tuple(str(digit) for digit in range(10))
        if kind == "npz" and Path(path).expanduser().is_file():
            return npz_classes(Path(path).expanduser())
        if kind == "folder" and Path(path).expanduser().is_dir():
            return folder_classes(Path(path).expanduser())
    except RecastError as error:
        logger.info("the classes of %s are left to the clients: %s", source, error)
    return None


def part_of(count: int, part: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the ascending places of a part of `count` images, from A % to B % of a fixed shuffle.

    The shuffle depends on `count` alone, so that ``[:50%]`` on one machine and ``[50%:]`` on
    another have no image in common and together have all.
    """
    shuffled = np.random.default_rng((_PART_SEED, count)).permutation(count)
    first, last = (count * percent // 100 for percent in part)
    return np.sort(shuffled[first:last])


def _load_source(
    spec: TaskSpec, size: int, seed: int, root: Path | None, skip_unreadable: bool
) -> Dataset:
    kind, colon, path = spec.data.partition(":")
    if colon and kind == "corrupted":
        name, _, level = spec.transforms[0].partition(":")
        folder = Path(path).expanduser()
        return load_corrupted(folder, name, int(level), size, seed, skip_unreadable=skip_unreadable)
    if colon and kind == "npz":
        return _load_npz(Path(path).expanduser())
    if colon and kind == "folder":
        return load_folder(Path(path).expanduser(), size, seed, skip_unreadable=skip_unreadable)
    if spec.data == "digits":
        return _load_digits()
    return load_torchvision(spec.data, size, seed, root or default_root())


def _load_npz(path: Path) -> Dataset:
    """Load a file of somebody's own, and say what is doubtful in it."""
    data = load_npz(path)
    lacking = sorted(set(range(len(data.classes))) - set(data.y_train.tolist()))
    if lacking:
        names = some([data.classes[label] for label in lacking])
        say(f"{path}: no training image of {names}", warn=True)
    if twice := alike(data.classes):
        say(f"{path}: classes {twice}", warn=True)
    tell_doubts(str(path), data)
    return data


def _load_digits() -> Dataset:
    """Load scikit-learn's 1797 digits of 8 x 8 pixels, 0..16 scaled to 0..255, a quarter test."""
    with needed("the data digits", "scikit-learn", "sim"):
        from sklearn.datasets import load_digits

    bunch = load_digits()
    x: Images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    y: Labels = bunch.target.astype(np.int64)
    train, test = stratified_split(y, 0.25, seed=0)
    return Dataset(x[train], y[train], x[test], y[test], tuple(str(d) for d in range(10)))


def _select(
    x: Images, y: Labels, part: Part, spec: TaskSpec, source: Dataset, seed: int
) -> tuple[Images, Labels, npt.NDArray[np.int64]]:
    """Keep the classes of the range and transform what is left; say which rows that is."""
    indices: npt.NDArray[np.int64] = np.arange(len(y))
    if spec.part is not None and part == "train":
        indices = part_of(len(y), spec.part)
    if spec.class_range is not None:
        first, last = spec.class_range
        if last >= len(source.classes):
            raise RecastError(
                f"classes @{first}-{last} of {spec.data}, which has {len(source.classes)}: "
                f"stay within @0-{len(source.classes) - 1}"
            )
        indices = indices[(y[indices] >= first) & (y[indices] <= last)]
    if len(indices) < len(y):
        x, y = x[indices], y[indices]
    if len(y) == 0:
        raise RecastError(
            f"task {spec.name} has no {part} images: add some, or choose other classes or a "
            "larger part"
        )
    own = ":" in spec.data and part == "train" and len(x) > 1
    if own and all(np.array_equal(one, x[0]) for one in x[1:]):  # most end at the second
        raise RecastError(
            f"all {len(x)} training images of task {spec.name} are the same: look at how they "
            "were written"
        )
    # What corrupted data come with is in their pixels.
    transforms = spec.transforms[1:] if spec.data.startswith("corrupted:") else spec.transforms
    x = apply_transforms(x, transforms, indices=indices, part=part, seed=seed)
    return x, y, indices
