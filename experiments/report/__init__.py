"""``recast report``: a run as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from experiments.report.data import find_registry, report_data
from experiments.report.points import own_points, read_points
from recast_core.files import write_atomically


def report(
    run: Path | None,
    output: Path | None = None,
    run_id: int | None = None,
    compare: Sequence[Path] = (),
    page: bool = True,
) -> dict[str, Any]:
    """Write the page of a run and return what it shows, as JSON values.

    Args:
        run: a run folder or a registry's file, the newest folder under ``runs/`` where ``None``.
        output: the page's file, ``report.html`` beside the registry where ``None``.
        run_id: of the registry's runs, the last one where ``None``.
        compare: files of other methods' rows, see ``read_points``.
        page: whether to write the page at all.

    Raises:
        RecastError: no such run, a file to compare that does not read, a package that is missing,
            or a folder that cannot be written.
    """
    path = find_registry(run)
    data = report_data(path, run_id)
    points = [*own_points(data), *(point for file in compare for point in read_points(file))]
    if page:
        from experiments.report.page import render

        target = path.parent / "report.html" if output is None else output
        write_atomically(target, render(data, points).encode())
        click.echo(f"report: {target}", err=True)
    return data | {"points": points}
