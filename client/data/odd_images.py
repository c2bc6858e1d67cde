"""Images that can be read and can hardly be meant: too dark, or the same one in two places."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from client.data.arrays import UNLABELLED, Dataset, Images, Labels
from client.data.saying import say
from recast_core.classes import some

# The brightest pixel of a set that was scaled to 0 to 1, 16 or 63 in place of 255.
_DARKEST = 63
# What data sets have of the same image in two places by themselves.
_MOST_TESTED, _MOST_TWICE = 0.05, 0.01
# So many images of a class that are all the same are no chance.
_ALIKE = 3


def tell_doubts(what: str, data: Dataset) -> None:
    """Warn once of images that are taken as they are, and teach or measure something else.

    Args:
        what: of which data, for the line.
        data: as they were stored, before any transform.
    """
    if doubts := image_doubts(data):
        say(f"{what}: {'; '.join(doubts)}", warn=True)


def image_doubts(data: Dataset) -> list[str]:
    """What there is to say of such images; see ``tell_doubts``."""
    found = [
        f"no {part} image has a pixel above {int(images.max())} of 255: scale them to 0 to 255"
        for part, images in (("training", data.x_train), ("test", data.x_test))
        if len(images) and int(images.max()) <= _DARKEST
    ]
    if named := [name for name, count in Counter(data.classes).items() if count > 1]:
        found.append(f"several classes are named {some(named, 3)}: give each a name of its own")
    labels: dict[bytes, set[int]] = defaultdict(set)
    prints = [_print(image) for image in data.x_train]
    for mark, label in zip(prints, data.y_train.tolist(), strict=True):
        labels[mark].add(label)
    found += _twice(labels, prints, data.classes)
    found += _all_alike(prints, data.y_train, data.classes)
    again = sum(_print(image) in labels for image in data.x_test)
    if again > _MOST_TESTED * len(data.x_test):
        found.append(
            f"{again} of {len(data.x_test)} test images are training images too, so that they "
            "measure what was seen: leave them out of either"
        )
    return found


def _print(image: Images) -> bytes:
    return blake2b(np.ascontiguousarray(image).data, digest_size=8).digest()


def _twice(
    labels: dict[bytes, set[int]], prints: Sequence[bytes], classes: Sequence[str]
) -> list[str]:
    """Of the same image in several classes, whose label cannot be learned."""
    several = {mark: sorted(own - {UNLABELLED}) for mark, own in labels.items()}
    several = {mark: own for mark, own in several.items() if len(own) > 1}
    count = sum(mark in several for mark in prints)
    if count <= _MOST_TWICE * len(prints):
        return []
    names = [classes[label] for label in next(iter(several.values()))]
    return [
        f"{count} training images are the same in several classes, such as {some(names, 3)}: leave "
        "each in one"
    ]


def _all_alike(prints: Sequence[bytes], labels: Labels, classes: Sequence[str]) -> list[str]:
    """Of classes that have one image, again and again."""
    own: dict[int, list[bytes]] = defaultdict(list)
    for mark, label in zip(prints, labels.tolist(), strict=True):
        own[label].append(mark)
    alike = [
        classes[label]
        for label, marks in sorted(own.items())
        if label != UNLABELLED and len(marks) >= _ALIKE and len(set(marks)) == 1
    ]
    return [f"all training images of {some(alike, 3)} are the same"] if alike else []
