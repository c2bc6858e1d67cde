"""The commands that look after runs. Imports are lazy, as in ``cli``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from experiments.command import options
from experiments.command.command_line import RecastCommand
from experiments.command.report_file import report

_run = click.Path(path_type=Path)


@click.group()
def runs() -> None:
    """List, show, compare and remove runs.

    Example: recast runs list
    """


@runs.command("list", cls=RecastCommand)
@click.argument("folder", type=_run, default=Path("runs"))
@options.json_file
def list_(folder: Path, json_path: Path | None) -> None:
    """List the runs under FOLDER, which is runs/ if not given.

    Example: recast runs list
    """
    from experiments.command.runs import list_runs

    report(json_path, lambda: list_runs(folder))


@runs.command("show", cls=RecastCommand)
@click.argument("run", type=_run)
@click.option("--number", type=int, help="Which run of the registry; the last if not given.")
@options.json_file
def show(run: Path, number: int | None, json_path: Path | None) -> None:
    """Show what the run in folder RUN learned and cost, and the settings it changed.

    Example: recast runs show runs/20260101-120000
    """
    from experiments.command.runs import show_run

    report(json_path, lambda: show_run(run, number))


@runs.command("compare", cls=RecastCommand)
@click.argument("run", type=_run, nargs=-1, required=True)
@options.json_file
def compare(run: tuple[Path, ...], json_path: Path | None) -> None:
    """Show runs side by side: settings that differ, accuracy and bytes.

    Example: recast runs compare runs/20260101-120000 runs/20260102-120000
    """
    from experiments.command.runs import compare_runs

    report(json_path, lambda: compare_runs(run))


@runs.command("watch", cls=RecastCommand)
@click.argument("run", type=_run, required=False)
@click.option(
    "--web", default="127.0.0.1:8080", metavar="HOST:PORT", show_default=True, help="Where."
)
@click.option(
    "--web-token",
    envvar="RECAST_WEB_TOKEN",
    help="What a reader must give, where other machines can read; one is made if not given.",
)
def watch_(run: Path | None, web: str, web_token: str | None) -> None:
    """Serve a live page of the run in folder RUN, the newest under runs/ if not given.

    Example: recast runs watch /var/lib/recast/run --web 127.0.0.1:8080
    """
    from experiments.command.watch import watch

    watch(run, web, web_token)


@runs.command("remove", cls=RecastCommand)
@click.argument("run", type=_run)
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.json_file
def remove(run: Path, yes: bool, json_path: Path | None) -> None:
    """Remove the run in folder RUN for good, once you have confirmed it.

    Example: recast runs remove runs/20260101-120000
    """
    from experiments.command.runs import remove_run

    def confirm(question: str) -> bool:
        return yes or (sys.stdin.isatty() and click.confirm(question, err=True))

    report(json_path, lambda: remove_run(run, confirm))
