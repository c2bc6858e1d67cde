"""The arrays of a task, and what every source of images must do to make them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recast_core.classes import MAX_CLASSES, Names
from recast_core.errors import RecastError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Groups = npt.NDArray[np.int64]

UNLABELLED = -1
"""Stands for the label of an image that has none."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A task's images. Loaded once and shared within the process: do not write into the arrays.

    Attributes:
        x_train: uint8 [N, H, W] (grey) or [N, H, W, 3] (RGB), 0 to 255.
        y_train: int64 [N], class ids in 0 .. len(classes) - 1.
        x_test: like `x_train`, [M, ...], same H and W.
        y_test: int64 [M].
        classes: the names of all classes of the source, kept or not; a label indexes them.
        groups_train: int64 [N], whose or of what each training image is, or None: a writer, a sign.
        groups_test: int64 [M], or None.
        grey_bits: how many bits the greys had of which these are the upper eight; 8 where they are
            as they were.
    """

    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    classes: tuple[str, ...]
    groups_train: Groups | None = None
    groups_test: Groups | None = None
    grey_bits: int = 8

    def digest(self) -> str:
        """16 hexadecimal digits that any other image, label or class name would change."""
        found = hashlib.sha256("\0".join(self.classes).encode("utf-8", "surrogatepass"))
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            found.update(f"{array.dtype}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class ClientData:
    """One client's share of a task; either part may be empty (shape [0, H, W] or [0, H, W, 3]).

    Attributes:
        x_train: uint8 [n, H, W] or [n, H, W, 3].
        y_train: int64 [n], global class ids, `UNLABELLED` where an image has no label.
        x_test: uint8 [m, ...].
        y_test: int64 [m].
        num_classes: how many classes the task has over all clients.
        class_names: the list that the labels count in; none where the source had no names.
    """

    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    num_classes: int
    class_names: tuple[str, ...] = ()

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which training images have a label: bool [n]."""
        known: npt.NDArray[np.bool_] = self.y_train != UNLABELLED
        return known


def as_images(array: npt.NDArray[Any], what: str) -> Images:
    """Return `array` as uint8 [N, H, W] or [N, H, W, 3]; a single channel is dropped.

    Raises:
        RecastError: another dtype or shape; the message starts with `what`.
    """
    if array.dtype != np.uint8:
        raise RecastError(f"{what} holds {array.dtype}: store images as uint8, 0 to 255")
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3):
        raise RecastError(f"{what} has shape {list(array.shape)}: use [N,H,W] or [N,H,W,3]")
    if 0 in array.shape[1:]:
        raise RecastError(f"{what} has shape {list(array.shape)}: images without pixels")
    return array


def as_labels(
    array: npt.NDArray[Any], what: str, count: int, num_classes: int, *, may_lack: bool = False
) -> Labels:
    """Return `array` as int64 [count] with values in 0 .. num_classes - 1.

    With `may_lack` also `UNLABELLED`.

    Raises:
        RecastError: not integers, another length, or a class id out of range.
    """
    if array.dtype.kind not in "iu":
        nan = array.dtype.kind == "f" and bool(np.isnan(array).any())
        raise RecastError(
            f"{what} holds {array.dtype}{' with NaN' if nan else ''}: store integer class ids"
        )
    if array.shape != (count,):
        raise RecastError(
            f"{what} has shape {list(array.shape)} for {count} images: one label per image"
        )
    least = UNLABELLED if may_lack else 0
    if count and (int(array.min()) < least or int(array.max()) >= num_classes):
        raise RecastError(
            f"{what} holds class ids {array.min()} to {array.max()} for {num_classes} classes: "
            f"use 0 to {num_classes - 1}{', and -1 for no label' if may_lack else ''}"
        )
    return array.astype(np.int64)


def names_of_ids(largest: int, what: str) -> Names:
    """Class ids as the names of classes that have no others.

    Args:
        largest: of the ids.
        what: holds them, for the message.

    Raises:
        RecastError: none, or of more classes than a task may have, as where they are no ids.
    """
    if not 0 <= largest < MAX_CLASSES:
        raise RecastError(
            f"{what} holds class id {largest}: use 0 to {MAX_CLASSES - 1}, each the place of a "
            "class in a list"
        )
    return tuple(str(label) for label in range(largest + 1))


def as_groups(array: npt.NDArray[Any], what: str, count: int) -> Groups:
    """Return `array` as int64 [count].

    Raises:
        RecastError: not integers, or another length.
    """
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise RecastError(
            f"{what} has shape {list(array.shape)} of {array.dtype} for {count} images: "
            "one integer per image"
        )
    return array.astype(np.int64)


def stratified_split(
    labels: Labels, test_fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split range(N) class by class into train and test indices, both ascending.

    Images without a label are training images. Every class keeps at least one training image; of n
    images round(n · test_fraction) are test.
    """
    rng = np.random.default_rng(seed)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels[labels != UNLABELLED]):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(int(len(members) * test_fraction + 0.5), len(members) - 1)
        is_test[members[:count]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
