"""The command ``recast bank``. No heavy imports here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from experiments.command import options
from experiments.command.command_line import SlowCommand
from experiments.command.report_file import report


@click.command(cls=SlowCommand)
@click.argument("backbone")
@click.option("--data", required=True, help="DATA over all classes of BACKBONE: the server's own.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Write the bank here."
)
@options.bank_plan
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@options.json_file
def bank(
    backbone: str,
    data: str,
    output: Path,
    device: str,
    json_path: Path | None = None,
    **values: Any,
) -> None:
    """Make a shift bank of a deployed classifier: what a fleet adapts by in new surroundings.

    Fine-tunes copies of BACKBONE under simulated shifts and keeps the leading directions of their
    differences. Finished copies are kept in OUTPUT.sources: an interrupted command goes on.

    Example: recast bank digits_resnet20 --data "digits[:50%]" --holdout weather -o bank.safetensors
    """
    from experiments.command.bank import BankPlan
    from experiments.command.bank_view import bank as run

    for name in ("shifts", "holdout"):
        if name in values:
            values[name] = tuple(values[name].replace(",", " ").split())
    report(json_path, lambda: run(backbone, data, BankPlan(**values), output, device), output)
