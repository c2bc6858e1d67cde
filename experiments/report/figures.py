"""The plots of a report, as Vega-Lite specifications.

Colours are the page's CSS variables, so that one drawing serves light, dark and paper. Legends are
the page's too: they wrap on a phone. Field names are fixed; what came over the network is only ever
a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.report.compare import Point

COLOURS = [f"var(--c{number})" for number in range(1, 9)]
KINDS = {
    "coefficients": "var(--c1)",
    "head": "var(--c3)",
    "metrics": "var(--c5)",
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
BAR_HEIGHT = 34
CELL_HEIGHT = 38
_PERCENT = {"format": ".1~%"}


@dataclass(frozen=True)
class LegendEntry:
    """A line of a legend: its text, its colour in CSS and the name of its shape."""

    label: str
    colour: str
    shape: str = "circle"


@dataclass(frozen=True)
class Figure:
    """A plot: ``spec`` in Vega-Lite, what it shows in a sentence, and its legend."""

    name: str
    spec: dict[str, Any]
    alt: str
    legend: tuple[LegendEntry, ...] = ()


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, in order; they repeat after the eighth."""
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}


def accuracy_figure(data: Mapping[str, Any]) -> Figure | None:
    """Accuracy of each task against the rounds of the run, and its head alone as hollow points."""
    rows = data["accuracy"]
    if not rows:
        return None
    colours = colour_of([task["name"] for task in data["tasks"]])
    last = max(row["run_round"] for row in rows)
    colour = _colour("task", colours)
    where = {
        "x": {
            "field": "run_round",
            "type": "quantitative",
            "title": "rounds of the run",
            "scale": {"domain": [0, max(last, 1)], "nice": False},
            "axis": {"tickMinStep": 1, "format": "d", "grid": False},
        },
        "y": _accuracy_axis("accuracy"),
        "color": colour,
    }
    tooltip = [
        _tip("task", "task"),
        _tip("run_round", "rounds so far", type="quantitative"),
        _tip("accuracy", "accuracy", type="quantitative", **_PERCENT),
        _tip("head_only_accuracy", "head only", type="quantitative", **_PERCENT),
        _tip("when", "evaluated"),
    ]
    when = {"round": "after this round", "learned": "after its last round", "again": "again later"}
    values = [dict(row) | {"when": when[row["kind"]]} for row in rows]
    head_only = [row for row in values if row["head_only_accuracy"] is not None]
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": where},
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": where | {"tooltip": tooltip},
        },
    ]
    if head_only:
        hollow = where | {"y": _accuracy_axis("head_only_accuracy"), "tooltip": tooltip}
        learned = [row for row in head_only if row["kind"] == "learned"]
        layers.append(
            {
                "data": {"values": learned},
                "mark": {"type": "point", "filled": False, "size": 60, "strokeWidth": 1.5},
                "encoding": hollow,
            }
        )
    names = ", ".join(colours)
    legend = [LegendEntry(name, value) for name, value in colours.items()]
    if head_only:
        legend.append(LegendEntry("head only, no coefficients", "var(--muted)", "hollow"))
    return Figure(
        "accuracy",
        _spec({"layer": layers, "height": 300}, values),
        f"Lines of accuracy against rounds, one for each task: {names}.",
        tuple(legend),
    )


def forgetting_figure(data: Mapping[str, Any]) -> Figure | None:
    """A cell for each task, after each task that was learned: accuracy as text and shade."""
    tasks = data["tasks"]
    matrix = data["forgetting"]["matrix"]
    labels = [f"{task['number']} {task['name']}" for task in tasks]
    cells = [
        {"task": labels[a], "name": tasks[a]["name"], "after": tasks[b]["number"],
         "after_name": tasks[b]["name"], "accuracy": matrix[b][a],
         "text": "–" if matrix[b][a] is None else f"{100 * matrix[b][a]:.1f}"}
        for a in range(len(tasks))
        for b in range(len(tasks))
        if b >= a or matrix[b][a] is not None
    ]  # fmt: skip
    found = [cell["accuracy"] for cell in cells if cell["accuracy"] is not None]
    if not found:
        return None
    low, high = min(found), max(found)
    low, high = (low, high) if high - low > 0.02 else (low - 0.02, high)
    middle = low + 0.55 * (high - low)
    axes = {
        "x": {
            "field": "after",
            "type": "ordinal",
            "title": "after learning task",
            "axis": {"labelAngle": 0, "orient": "top", "domain": False, "ticks": False},
            "scale": {"domain": [task["number"] for task in tasks], "padding": 0.04},
        },
        "y": {
            "field": "task",
            "type": "nominal",
            "title": None,
            "sort": None,
            "axis": {"labelLimit": 130, "domain": False, "ticks": False},
            "scale": {"domain": labels, "padding": 0.06},
        },
        "tooltip": [
            _tip("name", "task"),
            _tip("after_name", "after learning"),
            _tip("accuracy", "accuracy", type="quantitative", **_PERCENT),
        ],
    }
    shade = {
        "field": "accuracy",
        "type": "quantitative",
        "scale": {"domain": [low, high], "range": [0.1, 0.95], "zero": False, "nice": False},
        "legend": None,
    }
    text = {
        "condition": [
            {"test": "datum.accuracy === null", "value": "var(--muted)"},
            {"test": f"datum.accuracy > {middle:.6f}", "value": "var(--on-mark)"},
        ],
        "value": "var(--ink)",
    }
    layers = [
        {
            "transform": [{"filter": "datum.accuracy !== null"}],
            "mark": {"type": "rect", "color": "var(--c1)", "cornerRadius": 3},
            "encoding": axes | {"fillOpacity": shade},
        },
        {
            "mark": {"type": "text", "fontSize": 12},
            "encoding": axes | {"text": {"field": "text"}, "color": text},
        },
    ]
    return Figure(
        "forgetting",
        _spec({"layer": layers, "height": CELL_HEIGHT * len(tasks)}, cells),
        f"Heat map of accuracy in per cent: a row for each of {len(tasks)} tasks, a column for each"
        " task learned since.",
    )


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
                    "x": {
                        "field": "signed",
                        "type": "quantitative",
                        "title": "◂ down · bytes of all clients and rounds · up ▸",
                        "axis": {"labelExpr": "format(abs(datum.value), '~s')", "tickCount": 6},
                    },
                    "y": {
                        "field": "task",
                        "type": "nominal",
                        "title": None,
                        "sort": None,
                        "scale": {"domain": names},
                        "axis": {"labelLimit": 130, "ticks": False, "domain": False},
                    },
                    "color": _colour("kind", kinds),
                    "tooltip": [
                        _tip("task", "task"),
                        _tip("direction", "direction"),
                        _tip("kind", "kind"),
                        _tip("bytes", "bytes", type="quantitative", format=","),
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
        _spec(spec, rows),
        "Bars of message bytes for each task, down to the left and up to the right, stacked by "
        f"kind: {', '.join(kinds)}.",
        tuple(LegendEntry(kind, colour, "square") for kind, colour in kinds.items()),
    )


def tradeoff_figure(data: Mapping[str, Any], points: Sequence[Point]) -> Figure | None:
    """Accuracy against bytes of an update on a logarithmic axis, with the frames of radios."""
    if not points:
        return None
    methods = list(dict.fromkeys(point["method"] for point in points))
    colours = colour_of(methods)
    layers_used = {name: LAYERS[name] for name in LAYERS if any(p["layer"] == name for p in points)}
    values = [dict(p) | {"x": max(p["bytes"], SMALLEST)} for p in points]
    limits = data["limits"]
    highest = max([p["x"] for p in values] + [limit["bytes"] for limit in limits])
    x = {
        "field": "x",
        "type": "quantitative",
        "title": "bytes of one update, logarithmic",
        "scale": {"type": "log", "domain": [SMALLEST, 1.6 * highest], "nice": False},
        "axis": {"format": "~s", "tickCount": 6, "grid": False},
    }
    marks: list[dict[str, Any]] = [
        *_vertical([{"x": v["bytes"], "text": f"{v['bytes']} {v['name']}"} for v in limits], x),
        *_vertical(_own_updates(data), x, own=True),
        {
            "mark": {"type": "point", "filled": True, "opacity": 0.9, "strokeWidth": 1},
            "encoding": {
                "x": x,
                "y": _accuracy_axis("accuracy"),
                "color": _colour("method", colours),
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
                    _tip("method", "method"),
                    _tip("task", "task"),
                    _tip("transport", "transport"),
                    _tip("layer", "layer"),
                    _tip("bytes", "bytes", type="quantitative", format=",.0f"),
                    _tip("accuracy", "accuracy", type="quantitative", **_PERCENT),
                ],
            },
        },
    ]
    legend = [LegendEntry(name, colour) for name, colour in colours.items()]
    if len(layers_used) > 1:
        legend += [
            LegendEntry(LAYER_LABELS[name], "var(--muted)", shape)
            for name, shape in layers_used.items()
        ]
    return Figure(
        "tradeoff",
        _spec({"layer": marks, "height": 360}, values),
        "Points of accuracy against the bytes of one update, with the frame limits of radios as "
        f"vertical lines. Methods: {', '.join(methods)}.",
        tuple(legend),
    )


def refusals_figure(data: Mapping[str, Any]) -> Figure | None:
    """A bar for each reason that an answer was refused for."""
    rows = [{"reason": row["reason"], "count": row["count"]} for row in data["refusals"]]
    if not rows:
        return None
    spec = {
        "height": BAR_HEIGHT * len(rows),
        "mark": {"type": "bar", "height": {"band": 0.6}, "color": "var(--c2)", "cornerRadius": 1},
        "encoding": {
            "x": {
                "field": "count",
                "type": "quantitative",
                "title": "refused",
                "axis": {"tickMinStep": 1, "format": "~s"},
            },
            "y": {
                "field": "reason",
                "type": "nominal",
                "title": None,
                "sort": None,
                "axis": {"labelLimit": 140, "ticks": False},
            },
            "tooltip": [
                _tip("reason", "reason"),
                _tip("count", "refused", type="quantitative", format=","),
            ],
        },
    }
    total = sum(row["count"] for row in rows)
    return Figure("refusals", _spec(spec, rows), f"Bars of {total} refusals by their reason.")


def _own_updates(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    sizes = [task["update_bytes"] for task in data["tasks"] if task["update_bytes"]]
    return [{"x": max(sizes), "text": f"{max(sizes)} this run"}] if sizes else []


def _vertical(
    values: list[dict[str, Any]], x: dict[str, Any], own: bool = False
) -> list[dict[str, Any]]:
    colour = "var(--c1)" if own else "var(--muted)"
    line = {"type": "rule", "color": colour, "strokeDash": [1, 0] if own else [3, 3]}
    text = {
        "type": "text", "angle": 270, "align": "right", "baseline": "bottom", "dy": -2, "dx": -2,
        "color": colour, "fontSize": 10.5, "fontWeight": 600 if own else 400,
    }  # fmt: skip
    return [
        {"data": {"values": values}, "mark": line, "encoding": {"x": x}},
        {
            "data": {"values": values},
            "mark": text,
            "encoding": {"x": x, "y": {"value": 0}, "text": {"field": "text"}},
        },
    ]


def _accuracy_axis(field: str) -> dict[str, Any]:
    return {
        "field": field,
        "type": "quantitative",
        "title": "accuracy",
        "scale": {"zero": False, "nice": True},
        "axis": {"format": ".1~%", "tickCount": 6},
    }


def _colour(field: str, colours: Mapping[str, str]) -> dict[str, Any]:
    scale = {"domain": list(colours), "range": list(colours.values())}
    return {"field": field, "type": "nominal", "scale": scale, "legend": None}


def _tip(field: str, title: str, **more: Any) -> dict[str, Any]:
    return {"field": field, "title": title, "type": "nominal"} | more


def _spec(body: dict[str, Any], values: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": values},
        **body,
    }
