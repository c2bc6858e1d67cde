"""``python -m experiments.measure.deal FOLDER``: images for clients to try a federation with."""

from __future__ import annotations

from pathlib import Path

import click

from experiments.measure.share import deal
from recast_core.settings import Settings


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--clients", default=3, show_default=True, help="How many shares.")
@click.option("--tasks", required=True, help="DATA specifications, as of `recast serve`.")
def main(folder: Path, clients: int, tasks: str) -> None:
    """Write each client's share of the tasks as FOLDER/0, FOLDER/1, ..."""
    for path in deal(Settings(tasks=tasks), clients, folder):
        click.echo(str(path))


if __name__ == "__main__":
    main()
