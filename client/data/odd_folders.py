"""Class folders that can hardly be meant: copies of a data set, splits of odd names, too high."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from client.data.listing import Listing
from recast_core.classes import some
from recast_core.errors import RecastError

# A split's word within a longer name, as archives have them: seg_train, asl_alphabet_test, train_1.
_SPLIT = re.compile(
    r"(?:^|[^a-z])(train(?:ing)?|te?st(?:ing)?|val(?:id(?:ation)?)?)(?:[^a-z]|$)", re.I
)
_COPIES = 2


def check_depth(folder: Path, listing: Listing, known: bool) -> None:
    """Refuse what is one class, or splits for classes, because the class folders lie deeper.

    Args:
        folder: that holds the class folders.
        listing: of the training images.
        known: that the folders go by names that the task's classes have.

    Raises:
        RecastError: names the folder to give instead, or the names that splits should have.
    """
    if known:
        return
    if len(listing.classes) == 1:
        _check_single(folder, *next(iter(listing.classes.items())))
    splits = _splits(listing.classes)
    if any(len(_below(folder, listing.classes[name])) >= _COPIES for name in splits):
        raise RecastError(
            f"{some(splits)} in {folder} would be classes, and look like splits: name them "
            "train/ and test/, with a folder per class directly in each, or give one of them"
        )


def doubts(folder: Path, listing: Listing, names: Sequence[str]) -> list[str]:
    """What to say of class folders that are taken as they are, and may be meant otherwise.

    Args:
        folder: that holds the class folders.
        listing: of the training images.
        names: of all classes, none where it does not matter which have no training images.
    """
    found = []
    lacking = [name for name in names if not listing.classes.get(name)]
    if lacking:
        found.append(f"no training image of {some(lacking)}")
    below_each = {name: _below(folder, files) for name, files in listing.classes.items()}
    held = {name: below for name, below in below_each.items() if len(below) >= _COPIES}
    for name, below in held.items():
        like = [other for other in held if len(below & held[other]) >= _COPIES]
        if len(like) > 1:
            found.append(
                f"{some(like)} hold folders of the same names ({some(sorted(below))}): if those "
                f"are the classes, give one folder, such as {folder / name}"
            )
            break
    return found


def _splits(names: Iterable[str]) -> list[str]:
    """The names that are those of splits of one data set: a training split and others like it."""
    sets: dict[str, dict[str, bool]] = defaultdict(dict)
    for name in sorted(names):
        if found := _SPLIT.search(name):
            rest = re.sub(r"[\W\d_]+", "", name[: found.start(1)] + name[found.end(1) :])
            sets[rest.casefold()][name] = found[1].lower().startswith("tr")
    return [name for each in sets.values() if len(each) > 1 and any(each.values()) for name in each]


def _check_single(folder: Path, name: str, files: Sequence[Path]) -> None:
    """Refuse a single class that is the folder of the class folders, or lies above it."""
    parents = [file.relative_to(folder).parts[:-1] for file in files]
    if not parents:
        return
    common = parents[0]
    for parent in parents:
        shared = [a == b for a, b in zip(common, parent, strict=False)] + [False]
        common = common[: shared.index(False)]
    if all(len(parent) > len(common) for parent in parents):
        raise RecastError(
            f"{folder.joinpath(*common)} holds the class folders: give that folder itself"
        )


def _below(folder: Path, files: Sequence[Path]) -> set[str]:
    """The innermost folders of a class's images; none where images lie in the class folder."""
    parents = [file.relative_to(folder).parts[:-1] for file in files]
    return set() if any(len(parent) < 2 for parent in parents) else {p[-1] for p in parents}
