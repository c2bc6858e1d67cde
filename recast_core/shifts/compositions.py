"""Which shifts source networks are fine-tuned under: each alone first, then up to three at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recast_core.errors import RecastError
from recast_core.shifts.apply import shift
from recast_core.shifts.draws import seeds_of
from recast_core.shifts.table import (
    FAMILIES,
    NEED_COLOUR,
    SEVERITIES,
    Shift,
    families,
    parse_shift,
    shifts_of,
)

Composition = tuple[Shift, ...]


@dataclass(frozen=True)
class Rule:
    """How severe shifts are, and how many come at once.

    Attributes:
        first: severities of a shift's first time, alone.
        later: severities of what follows, by the number of shifts that come one after another.
        stream: of random numbers, beside the seed.
    """

    first: tuple[int, ...]
    later: Mapping[int, tuple[int, ...]]
    stream: int


UP_TO_THREE = Rule((4, 5), {1: (2, 3, 4, 5), 2: (2, 3, 4, 5), 3: (2, 3, 4)}, 49)
PAIRS = Rule((3, 4, 5), {2: (2, 3, 4)}, 48)


def allowed(
    names: Sequence[str], without: Collection[str] = (), *, grey: bool = False
) -> tuple[Shift | str, ...]:
    """The shifts that sources may be made of.

    Args:
        names: of shifts, with a severity or without (``fog``, ``fog:4``), and of families; none is
            every shift.
        without: families that are left out.
        grey: leave out what needs colour images, unless it is named.

    Returns:
        Names for which a severity is drawn, and shifts whose severity is given.

    Raises:
        RecastError: an unknown shift or family, or none left.
    """
    for family in without:
        shifts_of(family)
    found: dict[Shift | str, None] = {}
    for name in names or families():
        if name in families():
            found.update(dict.fromkeys(shifts_of(name, grey=grey)))
        elif ":" in name:
            found[parse_shift(name)] = None
        else:
            found[Shift(name).name] = None
    left = tuple(each for each in found if FAMILIES[name_of(each)] not in without)
    if not left:
        raise RecastError("no shift is left to make sources of: hold out fewer families")
    if grey and (odd := NEED_COLOUR.intersection(map(name_of, left))):
        raise RecastError(f"{sorted(odd)[0]} needs colour images, and these are grey: leave it out")
    return left


def compositions(
    count: int, choice: Sequence[Shift | str], seed: int, rule: Rule = UP_TO_THREE
) -> tuple[Composition, ...]:
    """What each of ``count`` sources meets: every shift of ``choice`` once, then several at once.

    Severities are drawn where they are not given. Shifts of one source differ; with one shift to
    choose from it comes back at other severities. Of two counts, the smaller's are the first of the
    larger's.
    """
    random = np.random.default_rng([seed, rule.stream])
    sizes = [size for size in rule.later if size <= len(choice)] or [1]

    def drawn(each: Shift | str, severities: tuple[int, ...]) -> Shift:
        return each if isinstance(each, Shift) else Shift(each, int(random.choice(severities)))

    made: list[Composition] = []
    for index in range(count):
        if index < len(choice):
            made.append((drawn(choice[index], rule.first),))
            continue
        size = sizes[int(random.integers(len(sizes)))]
        severities = rule.later.get(size, tuple(SEVERITIES))
        places = random.choice(len(choice), size, replace=False)
        made.append(tuple(drawn(choice[place], severities) for place in places))
    return tuple(made)


def composed(images: Tensor, shifts: Composition, seed: int) -> Tensor:
    """The images under one shift after the other: uint8 ``[N, C, H, W]``.

    What is random about an image hangs on ``seed`` and its place.
    """
    places = torch.arange(len(images), device=images.device)
    for turn, each in enumerate(shifts):
        images = shift(images, each.name, each.severity, seeds_of(places, seed, turn))
    return images


def described(shifts: Composition) -> str:
    """``fog:3+motion:2``."""
    return "+".join(map(str, shifts))


def name_of(each: Shift | str) -> str:
    """The name of a shift, whether its severity is given or not."""
    return each.name if isinstance(each, Shift) else each
