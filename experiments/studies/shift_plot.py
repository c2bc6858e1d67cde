"""A plot of the study of shifts, as SVG: how many points of accuracy so many bytes buy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.studies.svg import dot as mark
from experiments.studies.svg import line, opened, ring, text

_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 20, 52
_COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce")
_DECADES = range(0, 11, 2)
# Where what sends nothing is drawn, in decades.
_NOTHING = 0.0
_STEP = 5


@dataclass(frozen=True)
class Dot:
    """A mark of the plot.

    Attributes:
        network: decides the colour.
        name: of the contender.
        sent: bytes that a client sends for a whole task.
        gain: points over the best that trains nothing and sends nothing, mean over cells.
        spread: lowest and highest cell.
        few: few images have a label.
    """

    network: str
    name: str
    sent: int
    gain: float
    spread: tuple[float, float]
    few: bool


def draw(dots: Sequence[Dot]) -> str:
    """The plot as SVG text; grey lines and labels that read on light and dark pages."""
    low = _STEP * math.floor(min([0.0, *(dot.spread[0] for dot in dots)]) / _STEP)
    high = _STEP * math.ceil(max([_STEP, *(dot.spread[1] for dot in dots)]) / _STEP)

    def across(decades: float) -> float:
        return _LEFT + (decades + 0.5) / 10 * (_WIDTH - _LEFT - _RIGHT)

    def up(gain: float) -> float:
        return _TOP + (high - gain) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    title = "Points of accuracy gained against bytes sent by a client"
    parts = opened(_WIDTH, _HEIGHT, title)
    for tick in range(round(low), round(high) + 1, _STEP):
        parts.append(line((_LEFT, up(tick)), (_WIDTH - _RIGHT, up(tick)), "#ddd"))
        parts.append(text(_LEFT - 8, up(tick) + 4, f"{tick:+d}", "end"))
    for decade in _DECADES:
        if decade < 10:
            told = "nothing" if decade == 0 else f"10^{decade} B"
            parts.append(text(across(decade), _HEIGHT - _BOTTOM + 18, told, "middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(text(middle, _HEIGHT - 10, "sent by a client for a whole task", "middle"))
    networks = list(dict.fromkeys(dot.network for dot in dots))
    for place, network in enumerate(networks):
        colour, y = _COLOURS[place % len(_COLOURS)], _TOP + 14 + 18 * place
        parts.append(mark((_LEFT + 14, y), colour))
        parts.append(text(_LEFT + 26, y + 4, network, "start"))
    parts.append(ring((_LEFT + 14, _TOP + 14 + 18 * len(networks)), "#777"))
    parts.append(text(_LEFT + 26, _TOP + 18 + 18 * len(networks), "few labels", "start"))
    for dot in dots:
        place = networks.index(dot.network)
        colour = _COLOURS[place % len(_COLOURS)]
        decades = math.log10(dot.sent) if dot.sent else _NOTHING
        x = across(decades) + 10 * place + 5 * dot.few
        parts.append(line((x, up(dot.spread[0])), (x, up(dot.spread[1])), colour))
        parts.append((ring if dot.few else mark)((x, up(dot.gain)), colour))
    for name in dict.fromkeys(dot.name for dot in dots if dot.sent):
        ends = [across(math.log10(dot.sent)) for dot in dots if dot.name == name]
        parts.append(text(fmean(ends) + 12, _HEIGHT - _BOTTOM - 8, name, "middle"))
    return "\n".join([*parts, "</svg>"]) + "\n"
