"""The commands ``recast tasks ...`` and ``recast predict``. No heavy imports here."""

from __future__ import annotations

from pathlib import Path

import click

from experiments.command import options
from experiments.command.report_file import report

run_folder = click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="A run's folder; the newest under runs/ if not given.",
)


skip_unreadable = click.option(
    "--skip-unreadable", is_flag=True, help="Go on without images of DATA that cannot be read."
)


@click.group()
def tasks() -> None:
    """What a run has learned; add tasks to a running server.

    Example: recast tasks list --run runs/20260102-030405
    """


@tasks.command("list")
@run_folder
@options.json_file
def list_(run: Path | None, json_path: Path | None) -> None:
    """List the tasks of a run.

    Example: recast tasks list --json -
    """
    from experiments.command.tasks import list_tasks

    report(json_path, lambda: list_tasks(run))


@tasks.command()
@click.argument("task")
@run_folder
@options.json_file
def show(task: str, run: Path | None, json_path: Path | None) -> None:
    """Show one task: its rounds, accuracies, bytes and (in JSON) coefficients.

    Example: recast tasks show digits-inverted --json task.json
    """
    from experiments.command.tasks import show as run_show

    report(json_path, lambda: run_show(task, run))


@tasks.command()
@click.argument("task")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="A .safetensors or .onnx file, or a folder.",
)
@click.option(
    "--format",
    "form",
    default="",
    help="safetensors, onnx (one model, merged), or onnx-tasks (a folder: a model for the bank, "
    "and kilobytes that switch it to a task). By the file's suffix if not given.",
)
@click.option(
    "--data",
    default="",
    help="Measure on this DATA; where the run has no head of the task, fit a ridge head on it too.",
)
@skip_unreadable
@run_folder
@options.json_file
def export(
    task: str,
    output: Path,
    form: str,
    data: str,
    skip_unreadable: bool,
    run: Path | None,
    json_path: Path | None,
) -> None:
    """Write a task as a plain torch or ONNX model, merged, without a trace of templates.

    Example: recast tasks export digits -o digits.onnx --data digits
    """
    from experiments.command.tasks_export import export as run_export

    report(
        json_path,
        lambda: run_export(task, output, data, run, form, skip_unreadable=skip_unreadable),
    )


@tasks.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("spec")
@options.json_file
def add(run: Path, spec: str, json_path: Path | None) -> None:
    """Have the server of RUN learn a further task, SPEC, from its next round on.

    Example: recast tasks add runs/20260102-030405 "signs=npz:/data/signs.npz"
    """
    from experiments.command.tasks import add as run_add

    report(json_path, lambda: run_add(run, spec))


@tasks.command()
@click.argument("task")
@click.option("--round", "round_", type=int, required=True, help="A recorded round; 0: the start.")
@run_folder
@options.json_file
def rewind(task: str, round_: int, run: Path | None, json_path: Path | None) -> None:
    """Let a task go back to what it was after a round; its run goes on from there.

    Example: recast tasks rewind digits --round 3 --run runs/20260102-030405
    """
    from experiments.command.tasks import rewind as run_rewind

    report(json_path, lambda: run_rewind(task, round_, run))


@tasks.command()
@click.argument("run", type=click.Path(path_type=Path))
@options.json_file
def close(run: Path, json_path: Path | None) -> None:
    """Tell the server of RUN to end when all its tasks are learned.

    Example: recast tasks close runs/20260102-030405
    """
    from experiments.command.tasks import close as run_close

    report(json_path, lambda: run_close(run))


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--task", default="", help="A task of the run.")
@click.option("--data", default="", help="Fit the head on this DATA; the task's own if not given.")
@click.option(
    "--model", type=click.Path(path_type=Path), help="An exported task, in place of --task."
)
@skip_unreadable
@run_folder
@options.json_file
def predict(
    images: tuple[Path, ...],
    task: str,
    data: str,
    model: Path | None,
    skip_unreadable: bool,
    run: Path | None,
    json_path: Path | None,
) -> None:
    """Say which class of a task each of IMAGES is.

    Example: recast predict --task digits --data digits seven.png
    """
    from experiments.command.predict import predict as run_predict

    report(
        json_path,
        lambda: run_predict(images, task, run, data, model, skip_unreadable=skip_unreadable),
    )
