"""The public corrupted data sets, in the layouts of CIFAR-10-C and of ImageNet-C.

- CIFAR-10-C, CIFAR-100-C and others like them: `NAME.npy` for each corruption, the same images five
  times, from severity 1 to 5 one after another, and `labels.npy`.
- ImageNet-C, Tiny-ImageNet-C: `NAME/SEVERITY/CLASS/` with images, or one folder further down
  (`noise/gaussian_noise/1/...`), as its archives unpack.

Neither says which images to train on. A seeded stratified fifth of the images is the test set; it
is the same fifth for every corruption and severity, so that no client of one task is tested on what
a client of another learned from.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.arrays import Dataset, as_images, as_labels, names_of_ids, stratified_split
from client.data.folder import TEST_FRACTION, load_folder
from recast_core.classes import check_names, class_name
from recast_core.errors import RecastError
from recast_core.files import read_text
from recast_core.shifts.table import SEVERITIES

_LABELS = "labels"
_CLASSES = "classes.txt"
_CIFAR = re.compile(r"cifar[-_ ]?(100?)[-_ ]?c", re.IGNORECASE)
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
CIFAR10, CIFAR100 = tuple(_CIFAR10.split()), tuple(_CIFAR100.split())


def load_corrupted(
    path: Path, name: str, severity: int, size: int, seed: int, *, skip_unreadable: bool = False
) -> Dataset:
    """Load one corruption at one severity.

    Class names are the folders', or the lines of `classes.txt` beside the arrays; without that file
    a folder named like CIFAR-10-C or CIFAR-100-C has CIFAR's, and any other the ids as text.

    Args:
        path: the folder that holds all corruptions.
        name: of the corruption, as its file or folder has it.
        severity: 1 to 5.
        size: see `load_folder`; arrays stay as they are.
        seed: of the division into training and test images.
        skip_unreadable: see `load_folder`.

    Raises:
        RecastError: no such folder, corruption or severity (those present are named), or data that
            cannot be read.
    """
    if not path.is_dir():
        raise RecastError(f"no folder {path}: name one that holds corruptions")
    if (path / f"{name}.npy").is_file() and name != _LABELS:
        return _load_arrays(path, name, severity, seed)
    folder = _folders(path).get(name)
    if folder is None:
        raise RecastError(f"no corruption {name!r} in {path}: {_told(path)}")
    if not (folder / str(severity)).is_dir():
        present = ", ".join(str(level) for level in SEVERITIES if (folder / str(level)).is_dir())
        raise RecastError(f"no severity {severity} of {name} in {path}: it has {present}")
    return load_folder(folder / str(severity), size, seed, skip_unreadable=skip_unreadable)


def corruptions(path: Path) -> tuple[str, ...]:
    """Return the names of the corruptions in a folder, sorted."""
    arrays = {file.stem for file in path.glob("*.npy")} - {_LABELS}
    return tuple(sorted(arrays | set(_folders(path))))


def _told(path: Path) -> str:
    found = corruptions(path)
    if not found:
        return "it has neither NAME.npy files nor NAME/SEVERITY/ folders"
    return "it has " + ", ".join(found)


def _folders(path: Path) -> dict[str, Path]:
    """Folders of corruptions by name: those with a folder named by a severity."""
    levels = {str(level) for level in SEVERITIES}
    return {
        entry.name: entry
        for pattern in ("*/*", "*")
        for entry in sorted(path.glob(pattern))
        if entry.is_dir() and any((entry / level).is_dir() for level in levels)
    }


def _load_arrays(path: Path, name: str, severity: int, seed: int) -> Dataset:
    file, labels_file = path / f"{name}.npy", path / f"{_LABELS}.npy"
    if not labels_file.is_file():
        raise RecastError(f"no {labels_file.name} in {path}: put the labels beside the corruptions")
    every, every_label = _read(file), _read(labels_file)
    count = len(every) if every.ndim else 0
    if count == 0 or count % len(SEVERITIES) or every_label.shape != (count,):
        raise RecastError(
            f"{file} holds {list(every.shape)} and {labels_file.name} {list(every_label.shape)}: "
            "five severities of the same images and a label for each are needed"
        )
    per_level = count // len(SEVERITIES)
    rows = slice((severity - 1) * per_level, severity * per_level)
    # Not the whole file: severities are read one at a time.
    x = as_images(np.array(every[rows]), str(file))
    names = _class_names(path, every_label)
    y = as_labels(np.array(every_label[rows]), str(labels_file), len(x), len(names))
    train, test = stratified_split(y, TEST_FRACTION, seed)
    return Dataset(x[train], y[train], x[test], y[test], names)


def _read(file: Path) -> npt.NDArray[Any]:
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    # OverflowError: a header that claims less than nothing.
    except (OSError, ValueError, EOFError, OverflowError, MemoryError) as error:
        cause = " ".join(str(error).split())[:80]
        raise RecastError(f"cannot read {file} ({cause}): fetch it again") from error
    if not isinstance(found, np.ndarray):
        raise RecastError(f"cannot read {file} (an archive): write it with numpy.save")
    return found


def _class_names(path: Path, labels: npt.NDArray[Any]) -> tuple[str, ...]:
    if (path / _CLASSES).is_file():
        lines = map(class_name, read_text(path / _CLASSES, "replace").splitlines())
        return check_names(filter(None, lines), str(path / _CLASSES))
    named = _CIFAR.fullmatch(path.resolve().name)
    if named is not None:
        return CIFAR10 if named[1] == "10" else CIFAR100
    ids = labels.dtype.kind in "iu"  # `as_labels` refuses others
    return names_of_ids(int(labels.max()) if ids else 0, str(path / f"{_LABELS}.npy"))
