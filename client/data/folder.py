"""Images in folders named by class, and the data directory of a real client."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from client.data.arrays import UNLABELLED, ClientData, Dataset, Labels, stratified_split
from client.data.cut_off import cut_off
from client.data.images import Decoded, read_image, stack, to_bytes
from client.data.listing import Listing, find_splits, list_classes, told
from client.data.npz import load_npz
from client.data.odd_folders import check_depth, doubts
from client.data.odd_images import image_doubts, tell_doubts
from client.data.saying import say
from recast_core.classes import alike, check_alike, check_names, class_name, some
from recast_core.errors import RecastError
from recast_core.task_spec import check_task_name
from recast_core.text import how_many, plain

TEST_FRACTION = 0.2
UNLABELLED_FOLDER = "unlabelled"
_SHOWN = 20


def load_folder(
    path: Path,
    size: int,
    seed: int,
    classes: Sequence[str] | None = None,
    *,
    skip_unreadable: bool = False,
    may_lack_labels: bool = False,
) -> Dataset:
    """Load an ImageFolder: one folder of images per class, below `path` or its train/ and test/.

    With train/ the test images come from test/ (or val/); without either of these, or without
    train/, a seeded stratified fifth of the images is the test set. See `listing` for the names
    that these go by and for what is left out; what was found is logged once.

    Args:
        path: the folder.
        size: images larger than this, or of varying size, become size x size pixels.
        seed: of the split.
        classes: the names in the order of their ids; None: the class folders' names, sorted.
        skip_unreadable: go on without images that cannot be read, and say how many they are.
        may_lack_labels: images of a folder named `UNLABELLED_FOLDER` are training images without a
            label, unless `classes` has a class of that name.

    Raises:
        RecastError: no such folder, no class folders, no images, unreadable images (all of them in
            one line), or a class folder that `classes` does not name.
    """
    if not path.is_dir():
        raise RecastError(
            f"no folder {path}: name one that holds a folder of images per class{cut_off(path)}"
        )
    splits = find_splits(path, classes or ())
    parts = [list_classes(part) for part in (splits.train, splits.test) if part is not None]
    aside = {UNLABELLED_FOLDER} - {*(classes or ())} if may_lack_labels else set()
    names = _names(path, parts, classes, aside)
    skipped: Counter[str] = sum((part.skipped for part in parts), Counter())
    beside = f"beside {splits.train.name}/"
    skipped.update({f"folder {name}/ {beside}": 1 for name in splits.unused})
    skipped.update({f"folder {name}/ {beside} without a class of it": 1 for name in splits.foreign})
    for name in aside & {name for part in parts[1:] for name in part.classes}:
        skipped[f"of {name}/ among the test images"] += len(parts[1].classes.pop(name))
    check_depth(splits.train, parts[0], classes is not None)
    doubted = doubts(splits.train, parts[0], () if classes is not None else names)
    if masks := [str(mask.relative_to(path)) for part in parts for mask in part.masks]:
        doubted.append(f"taken for masks: {some(masks, 3)}; rename those that are pictures")
    if classes is None and (twice := alike(names)):
        doubted.append(f"classes {twice}")
    if not parts[0].count:
        raise RecastError(
            f"no image in the class folders of {splits.train}{told(skipped)}: add JPEG or PNG files"
        )
    ids = {name: index for index, name in enumerate(names)} | dict.fromkeys(aside, UNLABELLED)
    read, labels = _read_all(path, parts, ids, size, skipped, skip_unreadable)
    images, bits = to_bytes(read)
    arrays = stack(images, size)
    if splits.test is None:
        train, test = stratified_split(labels[0], TEST_FRACTION, seed)
        arrays, labels = [arrays[0][train], arrays[0][test]], [labels[0][train], labels[0][test]]
    data = Dataset(arrays[0], labels[0], arrays[1], labels[1], names, grey_bits=bits)
    doubted += image_doubts(data)
    grey = f", greys of {bits} bits scaled to 8" if bits > 8 else ""
    say(
        f"{path}: {len(labels[0])} training and {len(labels[1])} test images{told(skipped)}{grey}, "
        f"{how_many(len(names), 'class')}: {some(names)}"
        f"{''.join(f'; {doubt}' for doubt in doubted)}",
        warn=bool(doubted or set(skipped) - {"hidden or of the system"}),
    )
    return data


def folder_classes(path: Path) -> tuple[str, ...]:
    """The names that `load_folder` gives the classes, without reading an image.

    Raises:
        RecastError: as `load_folder`, but for images.
    """
    splits = find_splits(path)
    parts = [list_classes(part) for part in (splits.train, splits.test) if part is not None]
    return _names(path, parts, None, set())


def folder_task_data(
    data_dir: Path,
    task_name: str,
    size: int,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    *,
    skip_unreadable: bool = False,
    round_: int = 0,
) -> ClientData | None:
    """Load a real client's own images of a task, from DIR/TASK.npz or else DIR/TASK/.

    Labels count in the list of names that comes with the data, which `in_task_ids` maps into the
    task's:

    - those of an npz file in its `classes`, which may be missing if `classes` is given here, and
      must equal it if present; `x_test`, `y_test` may be missing, then a seeded stratified fifth
      is the test set;
    - a class folder's id is its name's place in `classes`; other names are refused, and classes
      that this client lacks are fine. Without `classes` the folders' sorted names count.

    Images may lack a label: -1 in `y_train`, or a folder named `unlabelled` beside the classes'.

    Args:
        data_dir: the client's data directory.
        task_name: comes from the server and is checked before it becomes a path.
        size: see `load_folder`.
        seed: of the train/test split where there is none.
        classes: all class names of the task in the order of their ids, where they are known.
        skip_unreadable: see `load_folder`.
        round_: in which the images are wanted, see `drifted_name`.

    Returns:
        The client's share, or None if the directory holds nothing of that name.

    Raises:
        RecastError: a bad name, or data that is there but cannot be used.
    """
    check_task_name(task_name)
    try:
        name = drifted_name(data_dir, task_name, round_)
        data = _load_task(data_dir, name, size, seed, classes, skip_unreadable)
    except RecastError as error:  # where its folder lies is nobody else's business
        told = error.told.replace(f"{data_dir}/", "").replace(f" in {data_dir}", "")
        raise RecastError(str(error), told=told) from error
    if data is None:
        return None
    count = len(data.classes)
    return ClientData(data.x_train, data.y_train, data.x_test, data.y_test, count, data.classes)


def _load_task(
    data_dir: Path,
    name: str,
    size: int,
    seed: int,
    classes: Sequence[str] | None,
    skip_unreadable: bool,
) -> Dataset | None:
    file, folder = data_dir / f"{name}.npz", data_dir / name
    if file.is_dir():
        raise RecastError(f"{file} is a folder: call it {name}/ if it holds a folder per class")
    if file.exists():
        if folder.is_dir():
            say(f"{file} is read, and the folder {folder.name}/ beside it is not", warn=True)
        data = load_npz(file, seed=seed, classes=classes, may_lack_test=True, may_lack_labels=True)
        tell_doubts(str(file), data)
        return data
    if not folder.is_dir():
        return None
    return load_folder(
        folder, size, seed, classes, skip_unreadable=skip_unreadable, may_lack_labels=True
    )


def drifted_name(data_dir: Path, task_name: str, round_: int) -> str:
    """Return the name of what a task's images have become by a round, from 1; 0 is the last.

    ``fog@4.npz``, or a folder ``fog@4``, holds the images of ``fog`` from the fourth round on.

    Raises:
        RecastError: two names of one round.
    """
    rounds: dict[int, str] = {}
    for path in sorted(data_dir.glob(f"{task_name}@*")):
        name = path.name if path.is_dir() else path.name.removesuffix(".npz")
        number = name[len(task_name) + 1 :]
        if not number.isdecimal() or (name == path.name and not path.is_dir()):
            say(
                f"{path} is left out: {task_name}@ROUND.npz or {task_name}@ROUND/ is read",
                warn=True,
            )
        elif rounds.setdefault(int(number), name) != name:
            raise RecastError(
                f"{rounds[int(number)]} and {name} in {data_dir} are both of round {int(number)}: "
                "keep one of them"
            )
    fitting = [number for number in rounds if not round_ or number <= round_]
    return rounds[max(fitting)] if fitting else task_name


def what_is_there(data_dir: Path, task_name: str) -> tuple[str, str]:
    """What a client looked for that has no images of a task, and what it found in that place.

    Returns:
        What it looked for, and a name that is nearly the same, if any: for the server too. And all
        names in the folder, which are nobody else's business.
    """
    try:
        found = sorted(plain(f"{e.name}/" if e.is_dir() else e.name) for e in data_dir.iterdir())
    except OSError as error:
        return f"its data folder cannot be read ({error.strerror})", "nothing"
    looked = f"no {task_name}.npz and no {task_name}/ with images in its data folder"
    listed = ", ".join(found[:20]) + (", ..." if len(found) > 20 else "") or "nothing"
    for name in (f"{task_name}.npz", task_name):
        if (data_dir / name).is_symlink() and not (data_dir / name).exists():
            return f"{looked} ({name} is a link to what is not there)", listed
    names = {name.rstrip("/").removesuffix(".npz").lower(): name for name in found}
    near = difflib.get_close_matches(task_name.lower(), names, n=1, cutoff=0.75)
    hint = f" (is it {names[near[0]]}?)" if near and names[near[0]] != f"{task_name}/" else ""
    if task_name in found:
        hint = f" ({task_name} is a file: an archive is called {task_name}.npz)"
    if not hint and len(found) > 1 and all(name.endswith("/") for name in found):
        hint = f" (are its folders the classes? move them into {task_name}/)"
    return looked + hint, listed


def _names(
    path: Path, parts: Sequence[Listing], classes: Sequence[str] | None, aside: set[str]
) -> tuple[str, ...]:
    """The task's classes; every class folder must be one of them, or set aside."""
    found = sorted({name for part in parts for name in part.classes} - aside)
    check_names(found or aside, str(path))
    if classes is not None:
        names = tuple(class_name(name) for name in classes)
        unknown = sorted(set(found) - set(names))
        if unknown:
            check_alike(unknown[0], names)
            raise RecastError(
                f"class folder {unknown[0]!r} in {path} is none of the task's {len(names)} classes "
                f"({some(names)}): rename or remove it"
            )
        return names
    trained = {name.casefold(): name for name in parts[0].classes}
    for name in found:
        other = trained.get(name.casefold(), name)
        if name not in parts[0].classes and other != name:
            raise RecastError(
                f"class {other!r} of the training images is {name!r} among the test images in "
                f"{path}: use one spelling"
            )
    return tuple(found)


def _read_all(
    path: Path,
    parts: Sequence[Listing],
    ids: Mapping[str, int],
    size: int,
    skipped: Counter[str],
    skip_unreadable: bool,
) -> tuple[list[list[Decoded]], list[Labels]]:
    """Every part's images and labels; images that cannot be read are skipped or raise together."""
    failed: list[str] = []
    images: list[list[Decoded]] = []
    labels: list[Labels] = []
    for part in parts:
        images.append([])
        own: list[int] = []
        for name, files in part.classes.items():
            for file in files:
                try:
                    images[-1].append(read_image(file, size))
                    own.append(ids[name])
                except ValueError as error:
                    failed.append(f"{file.relative_to(path)} ({error})")
        labels.append(np.array(own, dtype=np.int64))
    if failed and (not skip_unreadable or not images[0]):
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        count = f"cannot read {len(failed)} of the {sum(part.count for part in parts)} images in"
        remedy = "repair or remove them, or go on without them with --skip-unreadable"
        raise RecastError(
            f"{count} {path}: {', '.join(failed[:_SHOWN])}{more}; {remedy}",
            told=f"{count} {path}: {remedy}",
        )
    if failed:
        skipped["unreadable"] += len(failed)
    return images, labels
