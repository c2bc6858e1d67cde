"""The plots of what it cost: bytes by kind, accuracy against bytes, and refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.plots import (
    BAR_HEIGHT,
    COLOURS,
    PERCENT,
    Figure,
    LegendEntry,
    accuracy_axis,
    colour_of,
    colour_scale,
    make_spec,
    tip,
)
from experiments.report.points import Point

KINDS = {
    "coefficients": "var(--c1)",
    "head": "var(--c3)",
    "metrics": "var(--c5)",
    "shares": "var(--c4)",
    "keys": "var(--c2)",
    "control": "var(--c8)",
    "bank": "var(--c6)",
}
LAYERS = {"message": "circle", "payload": "triangle-up", "wire": "diamond"}
LAYER_LABELS = {
    "message": "serialised message",
    "payload": "payload, float32",
    "wire": "on the wire",
}
# Bytes from here down are drawn at the left edge of a logarithmic axis: nothing has no logarithm.
SMALLEST = 8.0
TRADEOFF_HEIGHT = 380
LABEL_HEIGHT = 14


_SIGNED_AXIS: Mapping[str, Any] = {
    "field": "signed",
    "type": "quantitative",
    "title": "◂ down · bytes · up ▸",
    "axis": {
        "labelExpr": "format(abs(datum.value), '~s')",
        "tickCount": 6,
        "tickMinStep": 1,
        "labelOverlap": "greedy",
        "labelSeparation": 6,
    },
}


def bytes_figure(data: Mapping[str, Any]) -> Figure | None:
    """Serialised messages of each task: down to the left, up to the right, stacked by kind."""
    rows = [
        {
            "task": row["task"],
            "kind": row["kind"],
            "direction": row["direction"],
            "bytes": row["bytes"],
            "signed": row["bytes"] * (1 if row["direction"] == "up" else -1),
        }
        for row in data["bytes"]
        if row["layer"] == "message" and row["task"] is not None
    ]
    if not rows:
        return None
    names = [task["name"] for task in data["tasks"]]
    kinds = {kind: KINDS[kind] for kind in KINDS if any(row["kind"] == kind for row in rows)}
    spec = {
        "height": BAR_HEIGHT * len(names),
        "layer": [
            {
                "mark": {"type": "bar", "height": {"band": 0.7}, "cornerRadius": 1},
                "encoding": {
                    "x": _SIGNED_AXIS,
                    "y": {
                        "field": "task",
                        "type": "nominal",
                        "title": None,
                        "sort": None,
                        "scale": {"domain": names},
                        "axis": {"labelLimit": 130, "ticks": False, "domain": False},
                    },
                    "color": colour_scale("kind", kinds),
                    "tooltip": [
                        tip("task", "task"),
                        tip("direction", "direction"),
                        tip("kind", "kind"),
                        tip("bytes", "bytes", type="quantitative", format=","),
                    ],
                },
            },
            {
                "data": {"values": [{"zero": 0}]},
                "mark": {"type": "rule", "color": "var(--muted)"},
                "encoding": {"x": {"field": "zero", "type": "quantitative"}},
            },
        ],
    }
    return Figure(
        "bytes",
        make_spec(spec, rows),
        "Bars of message bytes for each task, down to the left and up to the right, stacked by "
        f"kind: {', '.join(kinds)}.",
        tuple(LegendEntry(kind, colour, "square") for kind, colour in kinds.items()),
    )


def tradeoff_figure(
    data: Mapping[str, Any], points: Sequence[Point], known: Sequence[str] = ()
) -> Figure | None:
    """Accuracy against bytes of an update on a logarithmic axis, with the frames of radios.

    Args:
        data: of the run: its updates, and the frames.
        points: to draw.
        known: labels that come first, so that they have the colours of other plots.
    """
    if not points:
        return None
    points = [dict(point) | {"label": label_of(point)} for point in points]
    methods = list(dict.fromkeys([*known, *(point["label"] for point in points)]))
    drawn = {point["label"] for point in points}
    colours = {name: value for name, value in colour_of(methods).items() if name in drawn}
    layers_used = {name: LAYERS[name] for name in LAYERS if any(p["layer"] == name for p in points)}
    hollow = set(methods[len(COLOURS) :])
    values = [
        dict(p) | {"x": max(p["bytes"], SMALLEST), "hollow": p["label"] in hollow} for p in points
    ]
    limits = data["limits"]
    widest = max([p["x"] for p in values] + [limit["bytes"] for limit in limits] + [3000])
    x = {
        "field": "x",
        "type": "quantitative",
        "title": "bytes of one update, logarithmic",
        "scale": {"type": "log", "domain": [SMALLEST, 1.6 * widest], "nice": False},
        "axis": {"format": "~s", "tickCount": 6, "grid": False},
    }
    lines = _own_updates(data) + [
        {"x": limit["bytes"], "text": f"{limit['bytes']} {limit['name']}", "own": False}
        for limit in limits
    ]
    room = LABEL_HEIGHT * len(lines) + 6
    y = accuracy_axis("accuracy", values)
    y["scale"] = y["scale"] | {"range": [TRADEOFF_HEIGHT, room]}
    marks = [*_verticals(lines, x), _tradeoff_points(x, y, colours)]
    legend = [
        LegendEntry(name, colour, "hollow" if name in hollow else "circle")
        for name, colour in colours.items()
    ]
    if len(layers_used) > 1:
        legend += [
            LegendEntry(LAYER_LABELS[name], "var(--muted)", shape)
            for name, shape in layers_used.items()
        ]
    return Figure(
        "tradeoff",
        make_spec({"layer": marks, "height": TRADEOFF_HEIGHT}, values),
        "Points of accuracy against the bytes of one update, with the frame limits of radios as "
        f"vertical lines. Methods: {', '.join(methods)}.",
        tuple(legend),
    )


def label_of(point: Mapping[str, Any]) -> str:
    """A method with what carried it, where that is known."""
    carried = point["transport"]
    return f"{point['method']} ({carried})" if carried else str(point["method"])


def _tradeoff_points(
    x: Mapping[str, Any], y: Mapping[str, Any], colours: Mapping[str, str]
) -> dict[str, Any]:
    """The layer of points: colour by method, shape by layer, this run larger."""
    return {
        "mark": {"type": "point", "opacity": 0.9, "strokeWidth": 1.5},
        "encoding": {
            "x": x,
            "y": y,
            "stroke": colour_scale("label", colours),
            "fill": colour_scale("label", colours),
            "fillOpacity": {"condition": {"test": "datum.hollow", "value": 0}, "value": 1},
            "shape": {
                "field": "layer",
                "type": "nominal",
                "legend": None,
                "scale": {"domain": list(LAYERS), "range": list(LAYERS.values())},
            },
            "size": {
                "condition": {"test": "datum.method === 'this run'", "value": 150},
                "value": 80,
            },
            "tooltip": [
                tip("method", "method"),
                tip("task", "task"),
                tip("transport", "transport"),
                tip("layer", "layer"),
                tip("bytes", "bytes", type="quantitative", format=",.0f"),
                tip("accuracy", "accuracy", type="quantitative", **PERCENT),
            ],
        },
    }


def refusals_figure(data: Mapping[str, Any]) -> Figure | None:
    """A bar for each reason that an answer was refused for."""
    rows = [{"reason": row["reason"], "count": row["count"]} for row in data["refusals"]]
    if not rows:
        return None
    most = max(row["count"] for row in rows)
    ticks = {"values": list(range(most + 1))} if most <= 6 else {"tickCount": 6}
    spec = {
        "height": BAR_HEIGHT * len(rows),
        "mark": {"type": "bar", "height": {"band": 0.6}, "color": "var(--c2)", "cornerRadius": 1},
        "encoding": {
            "x": {
                "field": "count",
                "type": "quantitative",
                "title": "refused",
                "axis": {"format": "~s" if most >= 10_000 else ",d", "tickMinStep": 1, **ticks},
            },
            "y": {
                "field": "reason",
                "type": "nominal",
                "title": None,
                "sort": None,
                "axis": {"labelLimit": 140, "ticks": False},
            },
            "tooltip": [
                tip("reason", "reason"),
                tip("count", "refused", type="quantitative", format=","),
            ],
        },
    }
    total = sum(row["count"] for row in rows)
    return Figure("refusals", make_spec(spec, rows), f"Bars of {total} refusals by their reason.")


def _own_updates(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    sizes = [task["update_bytes"] for task in data["tasks"] if task["update_bytes"]]
    return [{"x": max(sizes), "text": f"{max(sizes)} this run", "own": True}] if sizes else []


def _verticals(lines: list[dict[str, Any]], x: dict[str, Any]) -> list[dict[str, Any]]:
    """A line at each ``x``, its label to the right; each label has a row of its own."""
    values = [line | {"row": LABEL_HEIGHT * (row + 0.5)} for row, line in enumerate(lines)]
    colour = {"condition": {"test": "datum.own", "value": "var(--c1)"}, "value": "var(--muted)"}
    dash = {"condition": {"test": "datum.own", "value": [1, 0]}, "value": [3, 3]}
    row = {"field": "row", "type": "quantitative", "scale": None, "axis": None}
    text = {"type": "text", "align": "left", "baseline": "middle", "dx": 4, "fontSize": 12}
    return [
        {
            "data": {"values": values},
            "mark": "rule",
            "encoding": {
                "x": x,
                "y": row,
                "y2": {"value": TRADEOFF_HEIGHT},
                "color": colour,
                "strokeDash": dash,
            },
        },
        {
            "data": {"values": values},
            "mark": text,
            "encoding": {"x": x, "y": row, "text": {"field": "text"}, "color": colour},
        },
    ]
