"""What the plots of a report share: Vega-Lite specifications in the page's colours.

Colours are the page's CSS variables, so that one drawing serves light, dark and paper. Legends are
the page's too: they wrap on a phone. Field names are fixed; what came over the network is only ever
a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLOURS = [f"var(--c{number})" for number in range(1, 9)]
BAR_HEIGHT = 34
PERCENT = {"format": ".1~%"}


@dataclass(frozen=True)
class LegendEntry:
    """A line of a legend: its text, its colour in CSS and the name of its shape."""

    label: str
    colour: str
    shape: str = "circle"


@dataclass(frozen=True)
class Figure:
    """A plot: ``spec`` in Vega-Lite, what it shows in a sentence, and its legend.

    Where there is less room than ``least_width`` pixels it scrolls.
    """

    name: str
    spec: dict[str, Any]
    alt: str
    legend: tuple[LegendEntry, ...] = ()
    least_width: int = 0


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, in order; they repeat after the eighth, in hollow marks."""
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}


def accuracy_axis(field: str, rows: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The y channel of a fraction, zoomed to what there is.

    Of ``rows`` that all have nearly one value the axis shows ten points around it: an axis of a
    single value has a single tick.
    """
    scale: dict[str, Any] = {"zero": False, "nice": True, "padding": 10}
    values = [row[field] for row in rows if row[field] is not None]
    if values and max(values) - min(values) < 0.01:
        scale = {"domain": [max(0.0, min(values) - 0.05), min(1.0, max(values) + 0.05)]}
    return {
        "field": field,
        "type": "quantitative",
        "title": "accuracy",
        "scale": scale,
        "axis": {"format": ".1~%", "tickCount": 6},
    }


def whole_ticks(last: int) -> list[int]:
    """Whole numbers from 0 to ``last`` for an axis: at most nine, evenly spaced."""
    step = max(1, -(-last // 8))
    return list(range(0, last + 1, step))


def loss_axis() -> dict[str, Any]:
    """The vertical axis of training losses, which may be of any size and sign."""
    return {
        "field": "loss",
        "type": "quantitative",
        "title": "training loss",
        "scale": {"zero": False, "nice": True, "padding": 10},
        "axis": {"format": "~g", "tickCount": 5},
    }


def rounds_axis(last: int) -> dict[str, Any]:
    """The x channel of the rounds of a run."""
    return {
        "field": "run_round",
        "type": "quantitative",
        "title": "rounds of the run",
        "scale": {"domain": [0, last], "nice": False},
        "axis": {"values": whole_ticks(last), "format": "d", "grid": False},
    }


def colour_scale(field: str, colours: Mapping[str, str]) -> dict[str, Any]:
    """The colour channel of a name; its legend is the page's."""
    scale = {"domain": list(colours), "range": list(colours.values())}
    return {"field": field, "type": "nominal", "scale": scale, "legend": None}


def tip(field: str, title: str, **more: Any) -> dict[str, Any]:
    """A line of a tooltip."""
    return {"field": field, "title": title, "type": "nominal"} | more


def dotted_lines(
    where: Mapping[str, Any], tooltip: Sequence[Mapping[str, Any]], size: int = 55
) -> list[dict[str, Any]]:
    """The layers of lines with a point, which tells its values, at each of theirs."""
    return [
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": where},
        {
            "mark": {"type": "point", "filled": True, "size": size, "opacity": 1},
            "encoding": {**where, "tooltip": tooltip},
        },
    ]


def make_spec(body: dict[str, Any], values: list[dict[str, Any]]) -> dict[str, Any]:
    """A specification as wide as its place on the page."""
    return {
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": values},
        **body,
    }
