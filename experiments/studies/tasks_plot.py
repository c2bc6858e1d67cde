"""The plot of the study of tasks: accuracy against the bytes of an update, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from experiments.studies.svg import dot, line, opened, text
from experiments.studies.tasks_entries import Entry, best_free, frontier

_WIDTH, _HEIGHT = 840, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 275, 20, 52
# Points between ticks, the finest that leaves so few of them.
_STEPS, _TICKS = (0.5, 1, 2, 5, 10, 20), 9
_INK, _RIVAL, _FREE, _GRID = "#0b6e99", "#999", "#c2410c", "#ddd"
# Between two lines of the list.
_APART = 17


@dataclass(frozen=True)
class _Scales:
    """Where bytes and accuracies are on the page.

    Attributes:
        low: the lowest accuracy, in points.
        high: the highest.
        step: points between ticks.
        decades: powers of ten from 10 B on.
    """

    low: float
    high: float
    step: float
    decades: float

    def across(self, size: int) -> float:
        return _LEFT + (math.log10(size) - 1) / self.decades * (_WIDTH - _LEFT - _RIGHT)

    def up(self, accuracy: float) -> float:
        part = (self.high - 100 * accuracy) / (self.high - self.low)
        return _TOP + part * (_HEIGHT - _TOP - _BOTTOM)

    def place(self, entry: Entry) -> tuple[float, float]:
        return self.across(entry.update_bytes), self.up(entry.mean)


def draw(entries: Sequence[Entry], title: str) -> str:
    """What sends something, with its seeds, the frontier as a line; the best of the rest."""
    sending = [entry for entry in entries if entry.update_bytes]
    free = best_free(entries)
    scales = _scales(sending, free)
    best = [entry for entry in frontier(entries) if entry.update_bytes]
    parts = [*opened(_WIDTH, _HEIGHT, title), *_axes(scales)]
    y = scales.up(free.mean)
    parts.append(line((_LEFT, y), (_WIDTH - _RIGHT, y), _FREE))
    parts.append(text(_WIDTH - _RIGHT + 6, y + 4, f"{free.name}: 0 B", "start"))
    parts += [line(scales.place(a), scales.place(b), _INK) for a, b in pairwise(best)]
    for entry in sorted(sending, key=lambda entry: entry in best):
        x, y = scales.place(entry)
        colour = _INK if entry in best else _RIVAL
        ends = scales.up(min(entry.seeds)), scales.up(max(entry.seeds))
        parts += [line((x, ends[0]), (x, ends[1]), colour)]
        parts.append(dot((x, y), colour, 4 if entry in best else 3))
    return "\n".join([*parts, *_names(best, scales), "</svg>"]) + "\n"


def _scales(sending: Sequence[Entry], free: Entry) -> _Scales:
    every = [100 * seed for entry in (*sending, free) for seed in entry.seeds]
    least, most = min(every), max(every)
    step = next((s for s in _STEPS if (most - least) / s < _TICKS - 2), _STEPS[-1])
    decades = math.log10(max(entry.update_bytes for entry in sending)) - 1
    low, high = step * math.floor(least / step), step * math.ceil(most / step)
    return _Scales(low, max(high, low + step), step, decades)


def _axes(scales: _Scales) -> list[str]:
    parts = []
    for tick in range(round((scales.high - scales.low) / scales.step) + 1):
        points = scales.low + tick * scales.step
        y = scales.up(points / 100)
        parts.append(line((_LEFT, y), (_WIDTH - _RIGHT, y), _GRID))
        parts.append(text(_LEFT - 8, y + 4, f"{points:g} %", "end"))
    for decade in range(1, 2 + math.floor(scales.decades)):
        x = scales.across(10**decade)
        parts.append(text(x, _HEIGHT - _BOTTOM + 18, f"{10**decade:,} B", "middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(text(middle, _HEIGHT - 10, "bytes of one update", "middle"))
    return parts


def _names(best: Sequence[Entry], scales: _Scales) -> list[str]:
    """The frontier's points numbered, and what the numbers stand for on the right."""
    parts = []
    for number, entry in enumerate(best, 1):
        x, y = scales.place(entry)
        parts.append(text(x - 5, y - 5, str(number), "end"))
        told = f"{number}  {entry.name}"
        parts.append(text(_WIDTH - _RIGHT + 16, _TOP + _APART * number, told, "start"))
    return parts
