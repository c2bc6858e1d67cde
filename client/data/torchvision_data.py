"""Image classification sets of torchvision, downloaded on first use."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.data.arrays import Dataset, as_labels, stratified_split
from client.data.images import Decoded, decoded, stack, to_bytes
from recast_core.errors import RecastError

_STALL_SECONDS = 30.0
_Arguments = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Parts:
    """Constructor arguments of the parts that make up train and test; no test: 80/20 split."""

    train: _Arguments
    test: _Arguments = ()


def _splits(train: Sequence[str], test: Sequence[str]) -> Parts:
    return Parts([{"split": name} for name in train], [{"split": name} for name in test])


_BOOL = Parts([{"train": True}], [{"train": False}])
_TRAIN_TEST = _splits(["train"], ["test"])
_TRAIN_VAL_TEST = _splits(["train", "val"], ["test"])
_WHOLE = Parts([{}])

DATASETS: Mapping[str, Parts] = {
    "CIFAR10": _BOOL,
    "CIFAR100": _BOOL,
    "MNIST": _BOOL,
    "FashionMNIST": _BOOL,
    "KMNIST": _BOOL,
    "QMNIST": _BOOL,
    "USPS": _BOOL,
    "EMNIST": Parts(
        [{"split": "balanced", "train": True}], [{"split": "balanced", "train": False}]
    ),
    "SVHN": _TRAIN_TEST,
    "STL10": _TRAIN_TEST,
    "GTSRB": _TRAIN_TEST,
    "Food101": _TRAIN_TEST,
    "Flowers102": _TRAIN_VAL_TEST,
    "DTD": _TRAIN_VAL_TEST,
    "RenderedSST2": _TRAIN_VAL_TEST,
    "FGVCAircraft": _splits(["trainval"], ["test"]),
    "OxfordIIITPet": _splits(["trainval"], ["test"]),
    "Country211": _splits(["train", "valid"], ["test"]),
    "Imagenette": _splits(["train"], ["val"]),
    "EuroSAT": _WHOLE,
    "Caltech101": _WHOLE,
    "Caltech256": _WHOLE,
    "SUN397": _WHOLE,
    "SEMEION": _WHOLE,
}
"""Sets that torchvision can download and that have one class label per image."""


def load_torchvision(name: str, size: int, seed: int, root: Path) -> Dataset:
    """Load a key of `DATASETS`; Flowers102, DTD and the like train on train and val together.

    Args:
        name: key of `DATASETS`.
        size: images larger than this, or of varying size, become size x size pixels.
        seed: of the 80/20 split of sets that come without one.
        root: folder of the downloads; shared by processes, which take turns.

    Raises:
        RecastError: it can be neither found in `root` nor downloaded.
    """
    from filelock import FileLock
    from torchvision import datasets

    parts = DATASETS[name]
    cls = getattr(datasets, name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{name}.lock"), _network_timeout(_STALL_SECONDS):
            sets = [cls(str(root), download=True, **kw) for kw in (*parts.train, *parts.test)]
        n = len(parts.train)
        train_images, train_labels = _decode(sets[:n], size)
        test_images, test_labels = _decode(sets[n:], size)
    except (OSError, RuntimeError, ImportError, ValueError, EOFError) as error:
        cause = " ".join(str(error).split())[:120] or type(error).__name__
        raise RecastError(
            f"cannot load {name} from {root} or the network ({cause}): "
            "use data at hand, npz:FILE or folder:DIR"
        ) from error
    scaled, bits = to_bytes([train_images, test_images])
    x_train, x_test = stack(scaled, size)
    y_train, y_test = np.array(train_labels, np.int64), np.array(test_labels, np.int64)
    if not parts.test:
        train, test = stratified_split(y_train, 0.2, seed)
        x_test, y_test = x_train[test], y_train[test]
        x_train, y_train = x_train[train], y_train[train]
    classes = _class_names(sets[0], int(y_train.max()) + 1)
    return Dataset(
        x_train,
        as_labels(y_train, f"{name} train", len(x_train), len(classes)),
        x_test,
        as_labels(y_test, f"{name} test", len(x_test), len(classes)),
        classes,
        grey_bits=bits,
    )


def _decode(sets: Sequence[Any], size: int) -> tuple[list[Decoded], list[int]]:
    images: list[Decoded] = []
    labels: list[int] = []
    for part in sets:
        for index in range(len(part)):
            image, label = part[index]
            images.append(decoded(image, size))
            labels.append(int(label))
    return images, labels


def _class_names(dataset: Any, at_least: int) -> tuple[str, ...]:
    """Return the set's own names (Imagenette has synonyms: the first), or the ids as text."""
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or []
    if len(names) < at_least:
        return tuple(str(label) for label in range(at_least))
    return tuple(str(name if isinstance(name, str) else name[0]) for name in names)


@contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """Let a connection that says nothing for `seconds` fail; torchvision sets no limit itself."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
