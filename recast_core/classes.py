"""What class ids mean: lists of names that clients and a server agree on.

An id is a name's place in a list. Two parties whose lists have the same `list_hash` mean the same
by an id; any others map their ids by name, and what has no counterpart is refused by name.
"""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from recast_core.errors import RecastError
from recast_core.look_alike import look_alikes, strange_letter
from recast_core.text import plain

Names = tuple[str, ...]
# What two bytes count, as heads do on the wire.
MAX_CLASSES = (1 << 16) - 1
MAX_NAME = 200
IMAGENET_CLASSES = 1000
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# What joins words or stands beside them; between digits it may be a number's.
_JOINTS = re.compile(r"[\s_-]+|(?<!\d)[./,;:'\"]+|[./,;:'\"]+(?!\d)")
_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")
# Spaces of other widths and of none, and the mark that begins a file.
_INVISIBLE = "\xa0\u2007\u202f\u200b\u2060\ufeff"
_SYNSET = re.compile(r"n\d{8}")


def class_name(name: str) -> str:
    """A class's name as everybody writes it: composed, on one line, nothing unseen at its ends."""
    readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    seen = _CONTROLS.sub(" ", unicodedata.normalize("NFC", readable))
    return seen.strip(f"{string.whitespace}{_INVISIBLE}")


@lru_cache(maxsize=64)
def list_hash(names: Names) -> int:
    """A number of 64 bits for a list of names in their order, never 0; 0 for no names."""
    if not names:
        return 0
    digest = hashlib.sha256()
    for name in names:
        encoded = name.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return int.from_bytes(digest.digest()[:8], "big") or 1


def check_names(names: Iterable[str], where: str = "") -> Names:
    """A list that somebody else sent or wrote.

    Args:
        names: in the order of their ids.
        where: it is from, for the message.

    Raises:
        RecastError: none or too many names, or one that is empty, too long or not printable.
    """
    found, of = tuple(names), f" in {where}" if where else ""
    if not 0 < len(found) <= MAX_CLASSES:
        raise RecastError(f"a list of {len(found)} classes{of}: 1 to {MAX_CLASSES} are taken")
    if "" in found:
        raise RecastError(f"a class without a name{of}: give each class one")
    for name in found:
        if plain(name, MAX_NAME) != " ".join(name.split()):
            raise RecastError(
                f"a class named {plain(name, 40)!r}{of}: use up to {MAX_NAME} characters"
            )
    return found


def agreed(announced: Mapping[Names, int]) -> Names:
    """The one list that every client can map its ids into, whoever answered first.

    Lists that are the same stay as they are. Otherwise it is all names, sorted; of names that
    differ in case, in leading zeros or in how words are joined alone, and that no client tells
    apart, only the one that most clients write: `task_ids` refuses whoever writes another, which is
    better than two classes.

    Args:
        announced: how many clients have each list, at least one list.
    """
    if len(announced) == 1:
        return next(iter(announced))
    written: Counter[str] = Counter()
    told_apart: set[str] = set()
    for names, clients in announced.items():
        keys = Counter(_key(name) for name in set(names))
        told_apart |= {key for key, count in keys.items() if count > 1}
        written.update(dict.fromkeys(set(names), clients))
    kept: dict[str, str] = {}
    union: set[str] = set()
    for name, _ in sorted(written.items(), key=lambda item: (-item[1], item[0])):
        if _key(name) in told_apart or kept.setdefault(_key(name), name) == name:
            union.add(name)
    return tuple(sorted(union))


def strangers(announced: Iterable[Names]) -> tuple[Names, Names] | None:
    """Two lists that no name leads from one to the other, if any: other classes, or other words."""
    parts: list[tuple[Names, set[str]]] = []
    for names in sorted(announced):
        known = {_key(name) for name in names}
        near = [part for part in parts if not known.isdisjoint(part[1])]
        apart = [part for part in parts if known.isdisjoint(part[1])]
        first = near[0][0] if near else names
        parts = [*apart, (first, known.union(*(part[1] for part in near)))]
    return (parts[0][0], parts[1][0]) if len(parts) > 1 else None


def agreed_outputs(announced: Mapping[Names, int], outputs: int) -> Names:
    """The list of a deployed classifier that does not name its ``outputs`` classes.

    An id is the place of an output, so the order is one that clients have, not one that is made,
    and no client can add a class. Lists of that length are weighed, and the names of all, sorted,
    as those have them who list a part each; whichever most clients can map their ids into is it.

    Args:
        announced: how many clients have each list, at least one list.
        outputs: of the classifier.

    Returns:
        The list; all names where no list of that length can be made.
    """
    union = agreed(announced)
    holders: Counter[str] = Counter()
    for names, clients in announced.items():
        holders.update(dict.fromkeys(set(names), clients))
    most = sorted(set(union), key=lambda name: (-holders[name], name))[:outputs]
    choices = {names for names in announced if len(names) == outputs}
    choices |= {tuple(sorted(most))} if len(most) == outputs else set()

    def followers(names: Names) -> int:
        known = set(names)
        return sum(clients for own, clients in announced.items() if known.issuperset(own))

    ranked = sorted(choices, key=lambda n: (-followers(n), -announced.get(n, 0), n))
    return ranked[0] if ranked else union


def alike(names: Iterable[str]) -> str:
    """What to say of names that look the same and count as two classes; nothing where none do."""
    pairs = [
        f"{one!r} and {other!r} ({strange_letter(other)})"
        for one, other in look_alikes(names, _key)
    ]
    if not pairs:
        return ""
    return f"{some(pairs, 3)} look alike and are not: write them alike if they are one class"


def task_ids(own: Names, classes: Names, used: Iterable[int]) -> list[int]:
    """What each id of the list ``own`` is in the list ``classes``; -1 for a class that it lacks.

    Args:
        own: the list that a client's labels count in.
        classes: of the task.
        used: the ids that occur in the client's labels.

    Raises:
        RecastError: a class that is used is none of the task's, or could be two of them.
    """
    if synsets_in_place(own, classes):
        return list(range(len(own)))
    places: dict[str, list[int]] = {}
    for place, name in enumerate(classes):
        places.setdefault(name, []).append(place)
    occurrences = Counter(own)
    for index in sorted(set(used)):
        name = own[index]
        if occurrences[name] > 1 or len(places.get(name, ())) > 1:
            raise RecastError(f"two classes are named {name!r}: ids cannot be told apart by name")
        if name not in places:
            near = next((known for known in classes if _key(known) == _key(name)), None)
            if near is not None:
                raise RecastError(f"class {name!r} is {near!r} in the task: use one spelling")
            check_alike(name, classes)
            raise RecastError(
                f"class {name!r} is none of the task's {len(classes)} ({some(classes)}): "
                "rename it or leave it out"
            )
    return [places[name][0] if name in places else -1 for name in own]


def check_alike(name: str, classes: Sequence[str]) -> None:
    """Refuse a class that is none of the task's, and looks like one.

    Raises:
        RecastError: names both, and the letter that is another.
    """
    near = next((known for known in classes if look_alikes((name, known), _key)), None)
    if near is not None:
        letter = strange_letter(name) or strange_letter(near)
        raise RecastError(
            f"class {name!r} looks like {near!r} of the task and is not ({letter}): use one "
            "spelling"
        )


def synsets_in_place(own: Names, classes: Names) -> bool:
    """Whether ``own`` are the ids of all of ImageNet's classes, and ``classes`` their names.

    Its folders go by WordNet's ids (``n01440764``), whose order is that of the outputs of every
    classifier that was trained on it; ``tench`` is what people call the first.
    """
    if len(own) != len(classes) or len(own) != IMAGENET_CLASSES or classes[0] != "tench":
        return False
    return list(own) == sorted(own) and all(map(_SYNSET.fullmatch, own))


def some(names: Sequence[str], count: int = 10) -> str:
    """The first names, for a line of text."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _key(name: str) -> str:
    """What stays of a name whichever way it is written."""
    folded = unicodedata.normalize("NFKC", name).casefold().replace("\u0307", "")  # Turkish I
    return _ZEROS.sub("", _JOINTS.sub("", folded)) or name
