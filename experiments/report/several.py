"""``recast report RUN RUN``: several runs side by side on one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from experiments.report.data import find_registry, report_data
from experiments.report.points import own_points, read_points
from experiments.report.repetition import settings_that_differ
from recast_core.errors import RecastError
from recast_core.files import write_atomically


def report_several(
    runs: Sequence[Path],
    output: Path | None = None,
    compare: Sequence[Path] = (),
    page: bool = True,
) -> dict[str, Any]:
    """Write the page of several runs and return what it shows, as JSON values.

    Args:
        runs: folders, or registries' files, of which the last run counts.
        output: the page's file; ``report.html`` in the current folder where ``None``.
        compare: files of other methods' rows, see ``read_points``.
        page: whether to write the page at all.

    Raises:
        RecastError: no such run, the same twice, or what ``report`` raises.
    """
    paths = [find_registry(run) for run in runs]
    if twice := [path for path, count in Counter(map(Path.absolute, paths)).items() if count > 1]:
        raise RecastError(f"{twice[0].parent} is named twice: name different runs")
    found = [report_data(path) for path in paths]
    labels = labels_of(found)
    points = [
        point
        for label, data in zip(labels, found, strict=True)
        for point in own_points(data, label)
    ]
    points += [point for file in compare for point in read_points(file)]
    shown = {
        "labels": labels,
        "runs": found,
        "settings": settings_that_differ(found),
        "points": points,
    }
    if page:
        from experiments.report.page import render_several

        target = output or Path("report.html")
        write_atomically(target, render_several(shown).encode())
        click.echo(f"report: {target}", err=True)
    return shown


def labels_of(runs: Sequence[dict[str, Any]]) -> list[str]:
    """A short name for each run: its folder's, with a number where two are the same."""
    names = [data["run"]["name"] for data in runs]
    counts, seen = Counter(names), Counter[str]()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(name if counts[name] == 1 else f"{name} {seen[name]}")
    return labels
