"""The plots of several runs side by side: what each reached, and how it got there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.plots import (
    BAR_HEIGHT,
    PERCENT,
    Figure,
    LegendEntry,
    accuracy_axis,
    colour_of,
    colour_scale,
    dotted_lines,
    loss_axis,
    make_spec,
    rounds_axis,
    tip,
)

Data = dict[str, Any]


def reached_figure(labels: Sequence[str], runs: Sequence[Data]) -> Figure | None:
    """A line for each task, a point on it for each run's accuracy after learning the task."""
    rows = [
        {"run": label, "task": task["name"], "accuracy": task["accuracy"]}
        for label, data in zip(labels, runs, strict=True)
        for task in data["tasks"]
        if task["accuracy"] is not None
    ]
    if not rows:
        return None
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    colours = colour_of(labels)
    y = {
        "field": "task",
        "type": "nominal",
        "title": None,
        "sort": None,
        "scale": {"domain": tasks},
        "axis": {"labelLimit": 130, "ticks": False, "domain": False, "grid": True},
    }
    spec = {
        "height": BAR_HEIGHT * len(tasks),
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0.9},
        "encoding": {
            "x": accuracy_axis("accuracy", rows) | {"title": "accuracy after learning"},
            "y": y,
            "color": colour_scale("run", colours),
            "tooltip": [
                tip("run", "run"),
                tip("task", "task"),
                tip("accuracy", "accuracy", type="quantitative", **PERCENT),
            ],
        },
    }
    return Figure(
        "reached",
        make_spec(spec, rows),
        f"Points of accuracy, a row for each task and a colour for each run: {', '.join(labels)}.",
        tuple(LegendEntry(label, colour) for label, colour in colours.items()),
    )


def curves_figure(labels: Sequence[str], runs: Sequence[Data]) -> Figure | None:
    """Accuracy against the rounds of each run: a line for each of its tasks, in its colour."""
    return _lines("curves", labels, runs, "accuracy", accuracy_axis("accuracy"), PERCENT)


def losses_figure(labels: Sequence[str], runs: Sequence[Data]) -> Figure | None:
    """Training loss against the rounds of each run, of those that know it."""
    return _lines("losses", labels, runs, "loss", loss_axis(), {"format": ".4~g"})


def _lines(
    name: str,
    labels: Sequence[str],
    runs: Sequence[Data],
    field: str,
    y: Mapping[str, Any],
    shown: Mapping[str, str],
) -> Figure | None:
    rows = [
        {"run": label, "line": f"{label} {row['task']}", "task": row["task"],
         "run_round": row["run_round"], field: row[field]}
        for label, data in zip(labels, runs, strict=True)
        for row in data[field]
    ]  # fmt: skip
    if not rows:
        return None
    known = {row["run"] for row in rows}
    colours = {label: colour for label, colour in colour_of(labels).items() if label in known}
    title = y["title"]
    last = max(row["run_round"] for data in runs for row in [*data["accuracy"], *data["loss"]])
    where = {
        "x": rounds_axis(max(last, 1)),
        "y": y,
        "color": colour_scale("run", colours),
        "detail": {"field": "line", "type": "nominal"},
    }
    tooltip = [
        tip("run", "run"),
        tip("task", "task"),
        tip("run_round", "rounds so far", type="quantitative"),
        tip(field, title, type="quantitative", **shown),
    ]
    return Figure(
        name,
        make_spec({"layer": dotted_lines(where, tooltip), "height": 300}, rows),
        f"Lines of {title} against rounds, in a colour for each run: {', '.join(colours)}.",
        tuple(LegendEntry(label, colour) for label, colour in colours.items()),
    )
