"""What a report says of training losses, and their plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.report.plots import (
    Figure,
    LegendEntry,
    colour_of,
    colour_scale,
    dotted_lines,
    loss_axis,
    make_spec,
    rounds_axis,
    tip,
)
from server.record.losses import round_losses
from server.record.registry import Registry


def losses(registry: Registry, run: int, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """The mean loss of each round whose clients' losses are known, as ``accuracy`` has rounds."""
    found = round_losses(registry, run)
    if not found:
        return []
    recorded = sorted(
        (entry for task in names for entry in registry.rounds(run, task)),
        key=lambda entry: entry.id,
    )
    return [
        {
            "task": names[entry.task],
            "round": entry.round,
            "run_round": place,
            "loss": found[entry.task, entry.round],
        }
        for place, entry in enumerate(recorded, start=1)
        if (entry.task, entry.round) in found
    ]


def loss_figure(data: Mapping[str, Any]) -> Figure | None:
    """Loss of each task against the rounds of the run."""
    rows = data["loss"]
    if not rows:
        return None
    colours = colour_of([task["name"] for task in data["tasks"]])
    last = max(row["run_round"] for row in [*rows, *data["accuracy"]])
    where = {
        "x": rounds_axis(max(last, 1)),
        "y": loss_axis(),
        "color": colour_scale("task", colours),
    }
    tooltip = [
        tip("task", "task"),
        tip("round", "round of the task", type="quantitative"),
        tip("loss", "training loss", type="quantitative", format=".4~g"),
    ]
    return Figure(
        "loss",
        make_spec({"layer": dotted_lines(where, tooltip), "height": 300}, rows),
        f"Lines of training loss against rounds, one for each task: {', '.join(colours)}.",
        tuple(LegendEntry(name, value) for name, value in colours.items()),
    )
