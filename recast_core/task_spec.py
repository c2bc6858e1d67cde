"""The task grammar: one line of text names a task's data, classes and image transforms."""

from __future__ import annotations

import difflib
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from recast_core.errors import RecastError
from recast_core.quoting import quote, split_outside, take_quoted
from recast_core.shifts.table import DEFAULT_SEVERITY, SHIFTS, severity_of
from recast_core.shifts.table import PLAIN as TRANSFORMS

GRAMMAR = "[NAME=]DATA[[A%:B%]][@A-B][+TRANSFORM[:SEVERITY[-SEVERITY]]...]"
PATH_KINDS = ("folder", "npz", "corrupted")
DATASETS = (
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "FashionMNIST",
    "KMNIST",
    "QMNIST",
    "USPS",
    "EMNIST",
    "SVHN",
    "STL10",
    "GTSRB",
    "Food101",
    "Flowers102",
    "DTD",
    "RenderedSST2",
    "FGVCAircraft",
    "OxfordIIITPet",
    "Country211",
    "Imagenette",
    "EuroSAT",
    "Caltech101",
    "Caltech256",
    "SUN397",
    "SEMEION",
)
"""What torchvision can download and has one class label per image."""
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,40}")
_PART = re.compile(r"(?:(?P<first>\d{1,9})%)?:(?:(?P<last>\d{1,9})%)?")
_SUFFIX = re.compile(
    r"(?P<data>.*?)(?:\[(?P<part>[0-9%:. -]*)\])?(?:@(?P<first>\d{1,9})-(?P<last>\d{1,9}))?"
    r"(?P<transforms>(?:\+[A-Za-z0-9_-]*(?::[A-Za-z0-9_.-]*)?)*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class TaskSpec:
    """What a task is made of; `str(spec)` is text that `parse_task` reads back to an equal spec.

    Attributes:
        name: 1 to 40 of ``A-Z a-z 0-9 . _ -``, no leading dot (it becomes a file name).
        data: ``digits``, ``folder:PATH``, ``npz:PATH``, ``corrupted:PATH`` or a torchvision
            dataset's class name.
        class_range: first and last class id kept, inclusive, or None for all. Ids stay global.
        transforms: applied in this order: names from `TRANSFORMS`, and shifts with their severity
            (``fog:3``), or with the severities of a task's first and last round (``fog:1-5``, see
            `shifts.drift`). The first of ``corrupted:PATH`` is a corruption that the data have.
        part: from which to which percentage of the training images, or None for all. The order
            is a shuffled one that depends on the data alone; test images stay whole.
    """

    name: str
    data: str
    class_range: tuple[int, int] | None = None
    transforms: tuple[str, ...] = ()
    part: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Return the canonical text of this task."""
        kept = "" if self.part is None else f"[{self.part[0]}%:{self.part[1]}%]"
        if self.class_range is not None:
            kept += f"@{self.class_range[0]}-{self.class_range[1]}"
        data = _written(self.data)
        return f"{self.name}={data}{kept}" + "".join(f"+{name}" for name in self.transforms)


def check_task_name(name: str) -> str:
    """Return `name` if it may name a task.

    Raises:
        RecastError: it is not 1 to 40 of ``A-Z a-z 0-9 . _ -``, or starts with a dot.
    """
    if not _NAME.fullmatch(name):
        raise RecastError(
            f"bad task name {name[:60]!r}: use 1 to 40 of A-Z a-z 0-9 . _ - and no leading dot"
        )
    return name


def parse_task(text: str) -> TaskSpec:
    """Read one task, `GRAMMAR`.

    Without NAME the name is that of the data (a path's last part, a dataset in lower case),
    followed by the part, the class range and the transforms: ``digits@0-4+inverted`` is
    ``digits-0-4-inverted``, ``digits[50%:]+fog`` is ``digits-50-100pct-fog-3``. A path may stand in
    quotes, ``folder:"/my photos, 2@0-1"+inverted``, and must where it ends in what could be read
    as one of these.

    Raises:
        RecastError: bad name, unknown data or transform, a severity out of range, empty path, part
            or class range.
    """
    text = text.strip()
    name, rest = _split_name(text)
    literal, rest = _quoted_data(rest)
    if name is None and literal is not None:
        name, literal = _split_name(literal)
    match = _SUFFIX.fullmatch(rest)
    assert match is not None  # the pattern accepts any text
    if literal is not None and match["data"]:
        raise RecastError(
            f"{match['data']!r} after the quotation in {text!r}: put the whole path into the quotes"
        )
    data = _canonical_data(match["data"] if literal is None else literal, text)
    class_range = None
    if match["first"] is not None:
        class_range = (int(match["first"]), int(match["last"]))
        if class_range[0] > class_range[1]:
            raise RecastError(f"empty class range in {text!r}: write @A-B with A <= B")
    part = None if match["part"] is None else _read_part(match["part"], text)
    written = match["transforms"].split("+")[1:]
    transforms: tuple[str, ...] = ()
    if data.startswith("corrupted:"):
        transforms, written = (_read_corruption(written, text),), written[1:]
    transforms += tuple(_read_transform(transform, text) for transform in written)
    if name is None:
        name = _default_name(data, part, class_range, transforms)
    return TaskSpec(check_task_name(name), data, class_range, transforms, part)


def parse_tasks(tasks: str | Iterable[str]) -> tuple[TaskSpec, ...]:
    """Read several tasks.

    Args:
        tasks: one text, tasks separated by commas or white space; or several texts, in each of
            which only commas separate, so that their paths may hold spaces. Neither separates
            within quotes.

    Raises:
        RecastError: no task at all, two of the same name, or whatever `parse_task` refuses.
    """
    if isinstance(tasks, str):
        items = split_outside(tasks, "," + string.whitespace)
    else:
        items = [item for text in tasks for item in split_outside(text, ",")]
    specs = tuple(parse_task(item) for item in items)
    if not specs:
        raise RecastError(f"no task given: name at least one as {GRAMMAR}, for example digits")
    seen: set[str] = set()
    for spec in specs:
        # Names become file names, and some file systems do not tell upper from lower case.
        if spec.name.lower() in seen:
            raise RecastError(
                f"two tasks are named {spec.name!r}: give one another name, NAME={spec.data}"
            )
        seen.add(spec.name.lower())
    return specs


def _split_name(text: str) -> tuple[str | None, str]:
    """Split off NAME=; an equals sign after the colon of a path belongs to the path."""
    head, equals, rest = text.partition("=")
    if not equals or ":" in head or head[:1] in ("'", '"'):
        return None, text
    return check_task_name(head.strip()), rest.strip()


def _quoted_data(rest: str) -> tuple[str | None, str]:
    """Split off data whose path, or that as a whole, stands in quotes; ``None`` if none does."""
    kind, colon, _ = rest.partition(":")
    prefix = kind + colon if kind.lower() in PATH_KINDS else ""
    found = take_quoted(rest[len(prefix) :])
    return (None, rest) if found is None else (prefix + found[0], found[1])


def _written(data: str) -> str:
    """Data as the grammar takes it: a path that would be read otherwise is put in quotes."""
    kind, colon, path = data.partition(":")
    if not colon:
        return data
    match = _SUFFIX.fullmatch(data)
    plain = match is not None and match["data"] == data
    if plain and path[0] not in "\"'" and not re.search(r"[\s,]", path):
        return data
    return f"{kind}:{quote(path)}"


def _canonical_data(data: str, text: str) -> str:
    kind, colon, path = data.partition(":")
    if colon and kind.lower() in PATH_KINDS:
        if not path.strip():
            raise RecastError(f"no path in {text!r}: write {kind.lower()}:PATH")
        return f"{kind.lower()}:{path}"
    names = {"digits": "digits", **{known.lower(): known for known in DATASETS}}
    found = names.get(data.lower())
    if found is None:
        shown = ["digits", *DATASETS, "folder:PATH", "npz:PATH", "corrupted:PATH"]
        suffix = PurePath(data).suffix.lower()
        kind = "npz:" if suffix == ".npz" else "folder:" if "/" in data or suffix else ""
        hint = f"did you mean {kind}{data}? " if kind else ""
        raise RecastError(
            f"unknown data {data!r} in {text!r} ({hint}a task is {GRAMMAR}; images of your own are "
            "folder:PATH or npz:PATH; a path with spaces or commas stands in quotes): "
            f"{_near(data, shown)}"
        )
    return found


def _read_corruption(written: Sequence[str], text: str) -> str:
    """Return the canonical text of a corruption that the data have; its name is as it is there."""
    name, colon, level = written[0].partition(":") if written else ("", "", "")
    if not name:
        raise RecastError(
            f"no corruption in {text!r}: write corrupted:PATH+NAME:SEVERITY, NAME as it is in PATH"
        )
    return f"{name}:{_read_level(level, name) if colon else DEFAULT_SEVERITY}"


def _read_transform(written: str, text: str) -> str:
    """Return a transform's canonical text; a shift's has its severity."""
    written = written.lower()
    name, colon, level = written.partition(":")
    if name in SHIFTS:
        return f"{name}:{_read_level(level, name) if colon else DEFAULT_SEVERITY}"
    if name not in TRANSFORMS:
        raise RecastError(
            f"unknown transform {name!r} in {text!r} (a path with a + stands in quotes): "
            f"{_near(name, (*TRANSFORMS, *SHIFTS))}"
        )
    if colon:
        raise RecastError(
            f"transform {name!r} in {text!r} has no severity: leave out {written[len(name) :]!r}"
        )
    return name


def _read_level(written: str, name: str) -> str:
    """Return the canonical text of a severity, or of the two that it moves between."""
    levels = [severity_of(level, name) for level in written.split("-", 1)]
    return "-".join(map(str, dict.fromkeys(levels)))


def _read_part(written: str, text: str) -> tuple[int, int]:
    match = _PART.fullmatch(written.replace(" ", ""))
    if match is None:
        raise RecastError(
            f"bad part [{written}] in {text!r}: write [A%:B%], whole percentages, "
            "either may be left out, or put a path that ends so in quotes"
        )
    first, last = int(match["first"] or 0), int(match["last"] or 100)
    if not first < last <= 100:
        raise RecastError(f"empty part [{written}] in {text!r}: write [A%:B%], 0 <= A < B <= 100")
    return first, last


def _default_name(
    data: str,
    part: tuple[int, int] | None,
    class_range: tuple[int, int] | None,
    transforms: Sequence[str],
) -> str:
    kind, colon, path = data.partition(":")
    if not colon:
        base = data.lower()
    else:
        base = PurePath(path).stem if kind == "npz" else PurePath(path).name
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", base).lstrip(".-") or kind
    suffix = "" if part is None else f"-{part[0]}-{part[1]}pct"
    if class_range is not None:
        suffix += f"-{class_range[0]}-{class_range[1]}"
    suffix += "".join(f"-{name.replace(':', '-')}" for name in transforms)
    return base[: max(1, 40 - len(suffix))] + suffix


def _near(word: str, known: Iterable[str]) -> str:
    """Return a remedy: the known names nearest to `word`, or all of them if none is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(by_lower[name] for name in near) + "?"
    return "choose from " + ", ".join(by_lower.values())
