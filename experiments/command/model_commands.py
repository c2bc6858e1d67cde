"""The commands about one backbone: plan and mimic. Imports are lazy, as in ``cli``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from experiments.command import options, report_file
from experiments.command.command_line import RecastCommand
from recast_core.errors import RecastError


@click.command(cls=RecastCommand)
@click.argument("backbone")
@click.option("--budget", type=int, help="List the methods whose update has at most so many bytes.")
@click.option(
    "--labels", type=int, help="With --budget: labelled images in the whole fleet; -1 is all."
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="With --budget: a file of results in place of those that the package carries.",
)
@options.config
@options.preset
@options.bits
@options.json_file
def plan(
    backbone: str,
    bits: int,
    budget: int | None = None,
    labels: int | None = None,
    results: Path | None = None,
    json_path: Path | None = None,
    **values: Any,
) -> None:
    """Say how many coefficients a configuration has, and what its bank and updates weigh.

    With --budget (recast plan resnet34:IMAGENET1K_V1 --budget 51): which methods' updates fit,
    best first by what was measured.

    Example: recast plan file:vit_small.safetensors --target mlp --groups 6
    """
    if budget is not None:
        if values:
            raise RecastError(
                f"--budget with --{next(iter(values))}: leave it out, every method is looked at"
            )
        from experiments.command.plan_budget import plan_budget

        known = -1 if labels is None else labels
        report_file.report(json_path, lambda: plan_budget(backbone, budget, known, results))
        return
    if labels is not None or results is not None:
        raise RecastError("--labels and --results go with --budget: give the bytes of an update")
    from experiments.command.plan import plan as run

    report_file.report(json_path, lambda: run(backbone, values, bits))


@click.command(cls=RecastCommand)
@click.argument("backbone")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the bank here.")
@click.option(
    "--method",
    default="closed-form",
    show_default=True,
    help="closed-form, gradient, vae, seeded, or all to compare them.",
)
@click.option("--data", default="", help="Compare features on 64 images of this DATA.")
@options.config
@options.preset
@options.json_file
def mimic(
    backbone: str,
    method: str,
    data: str,
    output: Path | None = None,
    json_path: Path | None = None,
    **values: Any,
) -> None:
    """Turn a pretrained backbone into a template bank.

    Example: recast mimic resnet34:IMAGENET1K_V1 --target conv -o bank.safetensors
    """
    from experiments.command.mimic import mimic as run

    report_file.report(json_path, lambda: run(backbone, values, method, output, data), output)
