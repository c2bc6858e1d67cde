"""The commands that tell of a run: ledger and report. Imports are lazy, as in ``cli``."""

from __future__ import annotations

from pathlib import Path

import click

from experiments.command import options, report_file
from recast_core.errors import RecastError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--number", type=int, help="Which run of the registry; the last if not given.")
@click.option("--csv", type=click.Path(path_type=Path), help="Write every row as CSV.")
@click.option("--parquet", type=click.Path(path_type=Path), help="Write every row as Parquet.")
@options.json_file
def ledger(
    run: Path,
    number: int | None = None,
    csv: Path | None = None,
    parquet: Path | None = None,
    json_path: Path | None = None,
) -> None:
    """Say what each task of the run in folder RUN cost, and export the rows.

    A row is one message at one layer: payload (what the method has to say), message (serialised)
    or wire (what a relay counted, in runs of `recast measure`).

    Example: recast ledger runs/20260101-120000 --csv ledger.csv
    """
    from experiments.command.ledger import ledger as show

    report_file.report(json_path, lambda: show(run, number, csv, parquet))


@click.command()
@click.argument("run", type=click.Path(path_type=Path), nargs=-1)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the page here.")
@click.option("--run-id", type=int, help="Of the registry's runs; the last one if not given.")
@click.option(
    "--compare",
    multiple=True,
    type=click.Path(path_type=Path),
    help="JSON of `recast measure` or of studies.methods_alone; may be repeated.",
)
@options.json_file
def report(
    run: tuple[Path, ...],
    output: Path | None,
    run_id: int | None,
    compare: tuple[Path, ...],
    json_path: Path | None = None,
) -> None:
    """Show a run, or several side by side, as one HTML page that loads nothing.

    RUN is a run folder or its registry; the newest folder under runs/ if not given. The page goes
    beside the registry, that of several runs into the current folder, unless -o says otherwise;
    with --json alone only the numbers are written.

    Example: recast report runs/20260101-120000 -o report.html --compare measure.json
    """
    page = output is not None or not json_path
    if len(run) > 1:
        if run_id is not None:
            raise RecastError("--run-id with several runs: of each registry the last run counts")
        from experiments.report.several import report_several

        report_file.report(json_path, lambda: report_several(run, output, compare, page=page))
        return
    from experiments.report import report as make

    one = run[0] if run else None
    report_file.report(json_path, lambda: make(one, output, run_id, compare, page=page))
