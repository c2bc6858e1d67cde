"""The plots of what was learned: accuracy over rounds, and forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.plots import (
    PERCENT,
    Figure,
    LegendEntry,
    accuracy_axis,
    colour_of,
    colour_scale,
    dotted_lines,
    make_spec,
    rounds_axis,
    tip,
)

CELL_HEIGHT, CELL_WIDTH, LABELS_WIDTH = 38, 38, 120
# What stands beside an accuracy, and its title; the last is drawn.
_FITTED = {"head_only_accuracy": "head only"}
_KEPT = {"deployed_accuracy": "as deployed", "zero_byte_accuracy": "best zero-byte"}


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The fractions that stand in the plot: accuracies, and what sends nothing."""
    names = ("accuracy", *_KEPT, *_FITTED)
    return [row[name] for row in rows for name in names if row.get(name) is not None]


def accuracy_figure(data: Mapping[str, Any]) -> Figure | None:
    """Accuracy of each task against the rounds of the run, and what sends nothing as hollow points.

    That is the head alone; of a kept classifier the best of all that sends nothing.
    """
    rows = data["accuracy"]
    if not rows:
        return None
    colours = colour_of([task["name"] for task in data["tasks"]])
    # As long as the loss's, which may be known of rounds that nobody evaluated.
    last = max(row["run_round"] for row in [*rows, *data["loss"]])
    where = {
        "x": rounds_axis(max(last, 1)),
        "y": accuracy_axis("accuracy", [{"accuracy": value} for value in _shown(rows)]),
        "color": colour_scale("task", colours),
    }
    kept = any("zero_byte_accuracy" in row for row in rows)
    beside = _KEPT if kept else _FITTED
    lower = next(reversed(beside))
    tooltip = [
        tip("task", "task"),
        tip("run_round", "rounds so far", type="quantitative"),
        tip("accuracy", "accuracy", type="quantitative", **PERCENT),
        *(tip(name, title, type="quantitative", **PERCENT) for name, title in beside.items()),
        tip("when", "evaluated"),
    ]
    when = {"round": "after this round", "learned": "after its last round", "again": "again later"}
    values = [dict(row) | {"when": when[row["kind"]]} for row in rows]
    learned = [row for row in values if row.get(lower) is not None and row["kind"] == "learned"]
    layers = dotted_lines(where, tooltip, size=70)
    if learned:
        hollow = where | {"y": accuracy_axis(lower), "tooltip": tooltip}
        layers.append(
            {
                "data": {"values": learned},
                "mark": {"type": "point", "filled": False, "size": 60, "strokeWidth": 1.5},
                "encoding": hollow,
            }
        )
    names = ", ".join(colours)
    legend = [LegendEntry(name, value) for name, value in colours.items()]
    if learned:
        title = f"{beside[lower]}, no coefficients"
        legend.append(LegendEntry(title, "var(--muted)", "hollow"))
    return Figure(
        "accuracy",
        make_spec({"layer": layers, "height": 300}, values),
        f"Lines of accuracy against rounds, one for each task: {names}.",
        tuple(legend),
    )


def _forgetting_cells(
    tasks: Sequence[Mapping[str, Any]], labels: Sequence[str], matrix: Sequence[Sequence[Any]]
) -> list[dict[str, Any]]:
    """A cell for each task and each that was learned since; empty ones where none was measured."""
    return [
        {"task": labels[a], "name": tasks[a]["name"], "after": tasks[b]["number"],
         "after_name": tasks[b]["name"], "accuracy": matrix[b][a],
         "text": "\u2013" if matrix[b][a] is None else f"{100 * matrix[b][a]:.1f}"}
        for a in range(len(tasks))
        for b in range(len(tasks))
        if b >= a or matrix[b][a] is not None
    ]  # fmt: skip


def _after_axis(numbers: list[int]) -> dict[str, Any]:
    return {
        "field": "after",
        "type": "ordinal",
        "title": "after learning task",
        "axis": {"labelAngle": 0, "orient": "top", "domain": False, "ticks": False},
        "scale": {"domain": numbers, "padding": 0.04},
    }


def _task_axis(labels: list[str]) -> dict[str, Any]:
    return {
        "field": "task",
        "type": "nominal",
        "title": None,
        "sort": None,
        "axis": {"labelLimit": 130, "domain": False, "ticks": False},
        "scale": {"domain": labels, "padding": 0.06},
    }


def forgetting_figure(data: Mapping[str, Any]) -> Figure | None:
    """A cell for each task, after each task that was learned: accuracy as text and shade."""
    tasks = data["tasks"]
    labels = [f"{task['number']} {task['name']}" for task in tasks]
    cells = _forgetting_cells(tasks, labels, data["forgetting"]["matrix"])
    found = [cell["accuracy"] for cell in cells if cell["accuracy"] is not None]
    if not found:
        return None
    axes = {
        "x": _after_axis([task["number"] for task in tasks]),
        "y": _task_axis(labels),
        "tooltip": [
            tip("name", "task"),
            tip("after_name", "after learning"),
            tip("accuracy", "accuracy", type="quantitative", **PERCENT),
        ],
    }
    shade = {
        "field": "accuracy",
        "type": "quantitative",
        # Fixed, so that a shade means the same on every page; on the darkest of them the page's ink
        # still has a contrast of 4.7, light or dark.
        "scale": {"domain": [0, 1], "range": [0.04, 0.55]},
        "legend": None,
    }
    text = {
        "condition": {"test": "datum.accuracy === null", "value": "var(--muted)"},
        "value": "var(--ink)",
    }
    layers = [
        {
            "transform": [{"filter": "datum.accuracy !== null"}],
            "mark": {"type": "rect", "color": "var(--c1)", "cornerRadius": 3},
            "encoding": axes | {"fillOpacity": shade},
        },
        {
            "mark": {"type": "text", "fontSize": 13, "fontWeight": 600},
            "encoding": axes | {"text": {"field": "text"}, "color": text},
        },
    ]
    return Figure(
        "forgetting",
        make_spec({"layer": layers, "height": CELL_HEIGHT * len(tasks)}, cells),
        f"Heat map of accuracy in per cent: a row for each of {len(tasks)} tasks, a column for each"
        " task learned since.",
        least_width=LABELS_WIDTH + CELL_WIDTH * len(tasks),
    )
