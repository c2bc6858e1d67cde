"""A plot of the study of shifts, as SVG: what part of the possible gain so many bytes buy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.studies.svg import dot as mark
from experiments.studies.svg import line, opened, text

_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 20, 52
_COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce")
_DECADES = range(0, 11, 2)
# Where what sends nothing is drawn, in decades.
_NOTHING = 0.0


@dataclass(frozen=True)
class Dot:
    """A mark of the plot.

    Attributes:
        network: decides the colour.
        name: of the contender.
        sent: bytes that a client sends for a whole task.
        part: of centralised full fine-tuning's gain, mean over cells.
        spread: lowest and highest cell.
    """

    network: str
    name: str
    sent: int
    part: float
    spread: tuple[float, float]


def draw(dots: Sequence[Dot]) -> str:
    """The plot as SVG text; grey lines and labels that read on light and dark pages."""
    low = min([0.0, *(dot.spread[0] for dot in dots)])
    high = max([1.0, *(dot.spread[1] for dot in dots)])
    low, high = math.floor(low * 5) / 5, math.ceil(high * 5) / 5

    def across(decades: float) -> float:
        return _LEFT + (decades + 0.5) / 10 * (_WIDTH - _LEFT - _RIGHT)

    def up(part: float) -> float:
        return _TOP + (high - part) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    title = "Part of centralised full fine-tuning's gain against bytes sent by a client"
    parts = opened(_WIDTH, _HEIGHT, title)
    for tick in range(round(low * 5), round(high * 5) + 1):
        y = up(tick / 5)
        parts.append(line((_LEFT, y), (_WIDTH - _RIGHT, y), "#ddd"))
        parts.append(text(_LEFT - 8, y + 4, f"{tick * 20} %", "end"))
    for decade in _DECADES:
        if decade < 10:
            told = "nothing" if decade == 0 else f"10^{decade} B"
            parts.append(text(across(decade), _HEIGHT - _BOTTOM + 18, told, "middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(text(middle, _HEIGHT - 10, "sent by a client for a whole task", "middle"))
    networks = list(dict.fromkeys(dot.network for dot in dots))
    for place, network in enumerate(networks):
        colour = _COLOURS[place % len(_COLOURS)]
        parts.append(mark((_LEFT + 14, _TOP + 12 + 18 * place), colour))
        parts.append(text(_LEFT + 26, _TOP + 16 + 18 * place, network, "start"))
    for dot in dots:
        place = networks.index(dot.network)
        colour = _COLOURS[place % len(_COLOURS)]
        decades = math.log10(dot.sent) if dot.sent else _NOTHING
        x, y = across(decades) + 8 * place, up(dot.part)
        parts.append(line((x, up(dot.spread[0])), (x, up(dot.spread[1])), colour))
        parts.append(mark((x, y), colour))
        right = decades < 7
        label = f"{dot.name}"
        parts.append(text(x + 9 if right else x - 9, y + 4, label, "start" if right else "end"))
    return "\n".join([*parts, "</svg>"]) + "\n"
