"""Tasks stored as arrays in one .npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.arrays import (
    Dataset,
    Groups,
    as_groups,
    as_images,
    as_labels,
    names_of_ids,
    stratified_split,
)
from client.data.cut_off import cut_off
from recast_core.classes import check_names, class_name
from recast_core.errors import RecastError

_Arrays = dict[str, npt.NDArray[Any]]
_KEYS = "keys of the file"
_SPLIT = ("x_train", "y_train", "x_test", "y_test")
# The keys of MedMNIST's files, which name no classes and hold labels as [N, 1].
_MEDMNIST = {
    "train_images": "x_train",
    "train_labels": "y_train",
    "test_images": "x_test",
    "test_labels": "y_test",
}
_FLAGGED = ("x", "y", "is_test")
# What a file may call the groups of its images: in general, of Omniglot, of GTSRB.
_GROUPS = ("group", "drawer", "track")


def load_npz(
    path: Path,
    *,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    may_lack_test: bool = False,
    may_lack_labels: bool = False,
) -> Dataset:
    """Load `x_train, y_train, x_test, y_test, classes`, or `x, y, is_test, classes`.

    Images are uint8 [N, H, W] or [N, H, W, 3] and stay as they are; labels are integer class ids,
    each an index into `classes`. Groups are integers, one per image: `group_train, group_test` (or
    `track_train, track_test`), in files with `is_test` `drawer` (or `group`). Nothing is unpickled.

    Args:
        path: the file.
        seed: of the stratified 80/20 split, if the test arrays may lack and do.
        classes: names known from elsewhere; the file's own may then be missing, and must not
            differ.
        may_lack_test: whether a file with only `x_train, y_train` will do.
        may_lack_labels: whether `y_train` may be -1 for images without a label.

    Raises:
        RecastError: absent, unreadable or misshapen file; the message names the array.
    """
    arrays = _as_ours(_read(path), path)
    names = _class_names(arrays, path, classes)
    if "is_test" in arrays and "x_train" not in arrays:
        arrays = _unflag(arrays, path)
    _require(arrays, path, _SPLIT[:2] if may_lack_test else _SPLIT)
    data = {}
    for part in ("train", "test"):
        if f"x_{part}" in arrays:
            _require(arrays, path, (f"x_{part}", f"y_{part}"))
            x = as_images(arrays[f"x_{part}"], f"x_{part} in {path}")
            y = as_labels(
                arrays[f"y_{part}"],
                f"y_{part} in {path}",
                len(x),
                len(names),
                may_lack=may_lack_labels and part == "train",
            )
            data[part] = (x, y)
    x, y = data["train"]
    if len(x) == 0:
        raise RecastError(f"x_train in {path} is empty: add training images")
    if "test" not in data:
        train, test = stratified_split(y, 0.2, seed)
        groups = _groups(arrays, path, "train", len(x))
        if groups is None:
            return Dataset(x[train], y[train], x[test], y[test], names)
        return Dataset(x[train], y[train], x[test], y[test], names, groups[train], groups[test])
    x_test, y_test = data["test"]
    if x_test.shape[1:] != x.shape[1:]:
        raise RecastError(
            f"x_train and x_test in {path} hold images of {list(x.shape[1:])} and "
            f"{list(x_test.shape[1:])}: use one size"
        )
    pair = (_groups(arrays, path, "train", len(x)), _groups(arrays, path, "test", len(x_test)))
    return Dataset(x, y, x_test, y_test, names, *pair)


def npz_classes(path: Path) -> tuple[str, ...]:
    """The names in a file's `classes`; its other arrays are not read.

    Raises:
        RecastError: an absent or unreadable file, or one without names.
    """
    return _class_names(_as_ours(_read(path, {"classes", *_MEDMNIST}), path), path, None)


def _groups(arrays: _Arrays, path: Path, part: str, count: int) -> Groups | None:
    for kind in _GROUPS:
        if (key := f"{kind}_{part}") in arrays:
            return as_groups(arrays[key], f"{key} in {path}", count)
    return None


def _read(path: Path, only: Collection[str] = ()) -> _Arrays:
    if path.is_dir():
        raise RecastError(f"{path} is a folder: write folder:{path} if it holds a folder per class")
    if not path.is_file():
        raise RecastError(f"no file {path}: check the path after npz:{cut_off(path)}")
    try:
        with np.load(path, allow_pickle=False) as file:
            wanted = {*_SPLIT, *_FLAGGED, "classes", *_GROUPS, *_MEDMNIST}
            wanted |= {f"{kind}_{part}" for kind in _GROUPS for part in ("train", "test")}
            found = {key: file[key] for key in file.files if key in (only or wanted)}
            return found | {_KEYS: np.array(sorted(file.files))}
    # AttributeError, TypeError: np.load gives an array, not an archive, for a .npy file.
    # MemoryError, OverflowError: a header that claims more than there is.
    except (
        OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, NotImplementedError,
        zipfile.BadZipFile, zlib.error, MemoryError, OverflowError,
    ) as error:  # fmt: skip
        cause = " ".join(str(error).split())[:80]
        if not zipfile.is_zipfile(path):  # numpy takes it for objects, and says how to trust them
            cause = "it is no archive of arrays"
        raise RecastError(
            f"cannot read {path} ({cause}): write it with numpy.savez, without object arrays"
        ) from error


def _as_ours(arrays: _Arrays, path: Path) -> _Arrays:
    """Arrays under our keys: MedMNIST's renamed, with ids for names, and labels [N, 1] as [N]."""
    found = {_MEDMNIST.get(key, key): array for key, array in arrays.items()}
    for key in ("y_train", "y_test", "y"):
        if key in found and found[key].ndim == 2 and found[key].shape[1] == 1:
            found[key] = found[key][:, 0]
    if "train_labels" in arrays and "classes" not in found:
        labels = [found[key] for key in ("y_train", "y_test") if key in found]
        if all(part.ndim == 1 and part.dtype.kind in "iu" and len(part) for part in labels):
            largest = max(int(part.max()) for part in labels)
            found["classes"] = np.array(names_of_ids(largest, str(path)))
        else:
            raise RecastError(
                f"train_labels in {path} are no class ids, one per image: they have shape "
                f"{list(labels[0].shape)}"
            )
    return found


def _require(arrays: _Arrays, path: Path, keys: Sequence[str]) -> None:
    missing = [key for key in keys if key not in arrays]
    if missing:
        held = ", ".join(arrays[_KEYS].tolist()) or "no arrays"
        raise RecastError(
            f"{path} lacks {', '.join(missing)}: store {', '.join((*_SPLIT, 'classes'))} (it has "
            f"{held})"
        )


def _class_names(arrays: _Arrays, path: Path, known: Sequence[str] | None) -> tuple[str, ...]:
    if "classes" not in arrays:
        if known is None:
            _require(arrays, path, ("classes",))
        return tuple(known or ())
    array = arrays["classes"]
    if array.ndim != 1 or array.dtype.kind not in "USiu" or not len(array):
        raise RecastError(f"classes in {path} is no list of names: store one string per class")
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", errors="replace")
    names = check_names((class_name(str(name)) for name in array), str(path))
    if known is not None and names != tuple(known):
        raise RecastError(
            f"classes in {path} differ from the task's {len(known)}: "
            "store the task's class names in its order, or leave them out"
        )
    return names


def _unflag(arrays: _Arrays, path: Path) -> _Arrays:
    _require(arrays, path, _FLAGGED)
    x, y, is_test = (arrays[key] for key in _FLAGGED)
    if is_test.dtype != bool or is_test.ndim != 1 or not x.ndim or not y.ndim:
        raise RecastError(f"is_test in {path} is no list of booleans: store one per image")
    if not len(x) == len(y) == len(is_test):
        raise RecastError(
            f"x, y and is_test in {path} have lengths {len(x)}, {len(y)} and {len(is_test)}: "
            "store one entry per image"
        )
    split = {
        "x_train": x[~is_test], "y_train": y[~is_test], "x_test": x[is_test], "y_test": y[is_test]
    }  # fmt: skip
    for kind in _GROUPS:
        if kind in arrays:
            groups = as_groups(arrays[kind], f"{kind} in {path}", len(x))
            split |= {f"{kind}_train": groups[~is_test], f"{kind}_test": groups[is_test]}
    return split
