"""What a folder of images holds: its splits, its classes, and what is none of either."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from client.data.masks import part_masks
from recast_core.classes import class_name
from recast_core.errors import RecastError

_END = r"([ _-]?(set|data|images|split))?"
_ROLES = {
    "train": re.compile(rf"(train|training|trn){_END}"),
    "test": re.compile(rf"(test|testing|tst){_END}"),
    "val": re.compile(rf"(val|valid|validation|dev|eval|evaluation){_END}"),
}
# What operating systems and their tools leave; names with a leading dot are left out as well.
_LEFT = frozenset(
    (
        "__macosx",
        "__pycache__",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "icon\r",
    )
)
# What Pillow reads only with other programs, or what is no picture.
_NOT_PICTURES = frozenset(("EPS", "WMF", "HDF5", "GRIB", "BUFR", "FITS", "MPEG", "IPTC", "MCIDAS"))
# Formats that show in their first bytes, for files whose names say nothing.
_SHOWING = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000")
# What shows that a folder is a run's.
REGISTRIES = ("registry.sqlite", "registry.url")


@dataclass(eq=False)
class Listing:
    """The image files of a folder of class folders.

    Attributes:
        classes: files of each class, sorted, by the class's name; without files where the folder
            is empty.
        skipped: how many files or folders were left out, by why.
        masks: those of them that are masks of photographs beside them.
    """

    classes: dict[str, list[Path]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    masks: list[Path] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many image files."""
        return sum(map(len, self.classes.values()))


@dataclass(frozen=True)
class Splits:
    """The folders of class folders: `test` is None where `train` holds all images.

    Attributes:
        train: of the training images.
        test: of the test images.
        unused: names of folders beside them that are not used.
        foreign: those of them that would be the test images, but have none of the classes.
    """

    train: Path
    test: Path | None
    unused: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


def find_splits(folder: Path, classes: Sequence[str] = ()) -> Splits:
    """Find train/ and test/ (or valid/) in `folder`, under any of their usual names in any case.

    A folder counts as a split where it holds folders; one that holds images itself is a class:
    trains beside buses. A test split of which no folder is a class of train/ holds images without
    labels (test/images, test/unknown) and is left alone.

    Args:
        folder: of the splits or the class folders.
        classes: further names that are classes, whether or not train/ has them.

    Raises:
        RecastError: two folders for one split, a test split without a training split, or splits
            without class folders.
    """
    children = [entry for entry in _entries(folder) if entry.is_dir()]
    roles = {entry: role for entry in children if (role := _role(entry.name))}
    nested = {
        entry: role
        for entry, role in roles.items()
        if _holds_folders(entry) and not _holds_images(entry)
    }
    train = _only(folder, nested, "train")
    if train is None:
        _check_no_split(folder, children, roles, nested)
        return Splits(folder, None)
    found = [split for role in ("test", "val") if (split := _only(folder, nested, role))]
    own = _class_keys(train) | {name.casefold() for name in classes}
    foreign = {split.name for split in found if own.isdisjoint(_class_keys(split))}
    test = next((split for split in found if split.name not in foreign), None)
    unused = {entry.name for entry in children if entry not in (train, test)} - foreign
    return Splits(train, test, tuple(sorted(unused)), tuple(sorted(foreign)))


def list_classes(folder: Path) -> Listing:
    """List the class folders of `folder`, and their images at any depth; links are followed.

    A folder whose files are no images is no class; an empty one is.

    Raises:
        RecastError: no class folders, one that holds splits, or two of one name.
    """
    found = Listing()
    for entry in _entries(folder, found.skipped):
        if not entry.is_dir():
            if _is_image(entry):
                found.skipped["beside the class folders"] += 1
            continue
        if any((entry / name).is_file() for name in REGISTRIES):
            found.skipped["a run's folder"] += 1
            continue
        _check_inside(entry)
        files = []
        others: Counter[str] = Counter()
        for file in _walk(entry, others, (_place(folder),)):
            if _is_image(file):
                files.append(file)
            else:
                others[_what(file)] += 1
        found.skipped.update(others)
        if others and not files:
            continue
        name = class_name(entry.name)
        if name in found.classes:
            raise RecastError(f"two class folders named {name!r} in {folder}: rename one of them")
        found.classes[name], masks = part_masks(sorted(files))
        found.masks += masks
    if not found.classes:
        raise RecastError(
            f"no class folders in {folder}{told(found.skipped)}: put each class's images in its own"
        )
    found.classes = dict(sorted(found.classes.items()))
    if found.masks:
        found.skipped["masks beside their photographs"] += len(found.masks)
    return found


def told(skipped: Counter[str]) -> str:
    """What was skipped, in brackets; nothing where nothing was."""
    if not skipped:
        return ""
    parts = ", ".join(f"{count} {why}" for why, count in skipped.most_common())
    return f" ({skipped.total()} skipped: {parts})"


def _role(name: str) -> str | None:
    word = name.strip().lower()
    return next((role for role, pattern in _ROLES.items() if pattern.fullmatch(word)), None)


def _only(folder: Path, nested: dict[Path, str], role: str) -> Path | None:
    found = sorted(entry.name for entry, own in nested.items() if own == role)
    if len(found) > 1:
        raise RecastError(
            f"{found[0]}/ and {found[1]}/ in {folder} are both {role} splits: keep one of them"
        )
    return folder / found[0] if found else None


def _class_keys(split: Path) -> set[str]:
    """The names of a split's folders, in any case."""
    return {class_name(entry.name).casefold() for entry in _entries(split) if entry.is_dir()}


def _check_no_split(
    folder: Path, children: list[Path], roles: dict[Path, str], nested: dict[Path, str]
) -> None:
    """Raise where folders without a training split cannot be meant for classes."""
    if nested:
        name = min(entry.name for entry in nested)
        raise RecastError(
            f"{name}/ in {folder} is a split without a training split beside it: name that train/, "
            f"or give {folder / name} itself"
        )
    flat = set(roles.values())
    if roles and (len(roles) == len(children) or ("train" in flat and len(flat) > 1)):
        name = min(entry.name for entry in roles)
        raise RecastError(
            f"{name}/ in {folder} holds images, not class folders: put a folder per class into it"
        )


def _check_inside(entry: Path) -> None:
    splits = [
        child
        for child in _entries(entry)
        if child.is_dir() and _role(child.name) == "train" and _holds_folders(child)
    ]
    if splits:
        raise RecastError(
            f"{entry} holds {splits[0].name}/ and would be one class: give that folder itself"
        )


def _holds_images(folder: Path) -> bool:
    """Whether images lie in the folder itself; a link or a class folder is none."""
    return any(_is_image(entry) for entry in _entries(folder) if entry.is_file())


def _holds_folders(folder: Path) -> bool:
    return any(entry.is_dir() for entry in _entries(folder))


def _entries(folder: Path, skipped: Counter[str] | None = None) -> list[Path]:
    """The folder's entries by name, without what operating systems leave."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise RecastError(f"cannot read folder {folder} ({error.strerror}): check it") from error
    kept = [entry for entry in found if not _is_left(entry.name)]
    if skipped is not None and len(kept) < len(found):
        skipped["hidden or of the system"] += len(found) - len(kept)
    return kept


def _is_left(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFT


def _walk(
    folder: Path, skipped: Counter[str], above: tuple[tuple[int, int], ...]
) -> Iterator[Path]:
    """The files below, through links too, but not through one to a folder that it lies in."""
    own = _place(folder)
    if own in above:
        skipped["links to a folder above"] += 1
        return
    for entry in _entries(folder, skipped):
        if entry.is_dir():
            yield from _walk(entry, skipped, (*above, own))
        elif entry.is_file():
            yield entry
        else:
            skipped["broken links" if entry.is_symlink() else "pipes or devices"] += 1


def _place(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


@lru_cache(maxsize=1)
def _suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the pictures that Pillow reads here."""
    from PIL import Image

    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(s for s, kind in known if kind in Image.OPEN and kind not in _NOT_PICTURES)


def _is_image(file: Path) -> bool:
    """Whether a file is an image by its name or, where that says nothing, by its first bytes."""
    from PIL import Image

    if file.suffix.lower() in _suffixes():
        return True
    try:
        with Image.open(file, formats=_SHOWING):
            return True
    except Exception:  # whatever a decoder makes of a file that is no image
        return False


def _what(file: Path) -> str:
    suffix = file.suffix.lower()
    return f"{suffix} files" if suffix else "files without a suffix"
