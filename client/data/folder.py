"""Images in folders named by class, and the data directory of a real client."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from client.data.arrays import (
    ClientData,
    Dataset,
    Images,
    Labels,
    pixels,
    stack,
    stratified_split,
)
from client.data.npz import load_npz
from recast_core.errors import RecastError
from recast_core.task_spec import check_task_name

TEST_FRACTION = 0.2


def load_folder(path: Path, size: int, seed: int, classes: Sequence[str] | None = None) -> Dataset:
    """Load an ImageFolder: one folder of images per class, below `path` or its train/ and test/.

    With train/ the test images come from test/ (or val/); without either of these, or without
    train/, a seeded stratified fifth of the images is the test set.

    Args:
        path: the folder.
        size: images larger than this, or of varying size, become size x size pixels.
        seed: of the split.
        classes: the names in the order of their ids; None: the class folders' names, sorted.

    Raises:
        RecastError: no such folder, no class folders, no images, an unreadable image, or a class
            folder that `classes` does not name.
    """
    if not path.is_dir():
        raise RecastError(f"no folder {path}: name one that holds a folder of images per class")
    train_dir = path / "train" if (path / "train").is_dir() else path
    test_dir = None
    if train_dir != path:
        test_dir = next((path / n for n in ("test", "val") if (path / n).is_dir()), None)
    parts = [_listing(part) for part in (train_dir, test_dir) if part is not None]
    found = sorted({name for part in parts for name in part})
    names = tuple(found if classes is None else classes)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise RecastError(
            f"class folder {unknown[0]!r} in {path} is none of the task's {len(names)} classes "
            f"({', '.join(names[:5])}, ...): rename or remove it"
        )
    ids = {name: index for index, name in enumerate(names)}
    images = [[_read(file, size) for files in part.values() for file in files] for part in parts]
    labels: list[Labels] = [
        np.repeat([ids[name] for name in part], [len(files) for files in part.values()])
        for part in parts
    ]
    if not images[0]:
        raise RecastError(f"no image in the class folders of {train_dir}: add JPEG or PNG files")
    arrays = stack(images, size)
    if test_dir is None:
        train, test = stratified_split(labels[0], TEST_FRACTION, seed)
        arrays, labels = [arrays[0][train], arrays[0][test]], [labels[0][train], labels[0][test]]
    return Dataset(arrays[0], labels[0], arrays[1], labels[1], names)


def folder_task_data(
    data_dir: Path,
    task_name: str,
    size: int,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> ClientData | None:
    """Load a real client's own images of a task, from DIR/TASK.npz or else DIR/TASK/.

    Clients must agree on what a class id means:

    - the labels of an npz file are global ids as they stand. Its `classes` may be missing if
      `classes` is given, and must equal it if present; `x_test`, `y_test` may be missing, then
      a seeded stratified fifth is the test set;
    - a class folder's id is its name's place in `classes`; other names are refused, and classes
      that this client lacks are fine. Without `classes` the folders' sorted names count, which is
      right only if every client has a folder, be it empty, for every class.

    Args:
        data_dir: the client's data directory.
        task_name: comes from the server and is checked before it becomes a path.
        size: see `load_folder`.
        seed: of the train/test split where there is none.
        classes: all class names of the task in the order of their ids, as the server has them.

    Returns:
        The client's share, or None if the directory holds nothing of that name.

    Raises:
        RecastError: a bad name, or data that is there but cannot be used.
    """
    check_task_name(task_name)
    file, folder = data_dir / f"{task_name}.npz", data_dir / task_name
    if file.exists():
        data = load_npz(file, seed=seed, classes=classes, may_lack_test=True)
    elif folder.is_dir():
        data = load_folder(folder, size, seed, classes)
    else:
        return None
    return ClientData(data.x_train, data.y_train, data.x_test, data.y_test, len(data.classes))


def _listing(folder: Path) -> dict[str, list[Path]]:
    """Return each class folder's image files, both sorted by name."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    listing = {
        entry.name: sorted(
            file for file in entry.rglob("*") if file.suffix.lower() in IMG_EXTENSIONS
        )
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    }
    if not listing:
        raise RecastError(f"no class folders in {folder}: put each class's images in its own")
    return listing


def _read(file: Path, size: int) -> Images:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            return pixels(ImageOps.exif_transpose(image), size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        cause = " ".join(str(error).split())[:80]
        raise RecastError(f"cannot read image {file} ({cause}): repair or remove it") from error
