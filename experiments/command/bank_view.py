"""What a person sees of ``recast bank``: a bar on a terminal, plain lines elsewhere, a table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from client.learners import pick_device
from experiments.command.bank import BankPlan, MadeBank, make_bank
from experiments.command.console import stdout
from recast_core.closing import Closing
from recast_core.errors import RecastError
from recast_core.sources.held_out_shifts import hardly_falls, share_of_gain
from recast_core.sources.source_networks import SourceFolder, SourceNetwork


class BankBar(Closing):
    """A bar for the source networks; ``BankWatcher``."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("source networks"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._bar = self._progress.add_task("fine-tuning", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def source(self, done: int, of: int, made: SourceNetwork, kept: bool) -> None:
        """Move the bar on, or say it."""
        self._progress.update(self._bar, completed=done, total=of, description=made.name)
        losses = f"loss {made.losses.first:.2f} to {made.losses.last:.2f}"
        if not made.differences:
            self.say(f"source {done}, {made.name}, diverged ({losses}): left out")
        elif not self._live:
            self.say(f"source {done}/{of} {made.name}: {'kept' if kept else losses}")
        if done == of:
            self.say("packing the directions, then trying them on shifts that no source met ...")

    def say(self, text: str) -> None:
        """A line."""
        self._console.print(text, highlight=False, soft_wrap=True)


def bank(backbone: str, data: str, plan: BankPlan, output: Path, device: str) -> dict[str, Any]:
    """Make a shift bank, write it to ``output``, print and return what it is.

    Sources that are finished lie in ``OUTPUT.sources`` until the bank is written, so that an
    interrupted command goes on where it was.

    Raises:
        RecastError: as ``make_bank``, or an output that is a folder.
    """
    if output.is_dir():
        raise RecastError(f"{output} is a folder: name a file to write the bank to")
    folder = output.with_name(f"{output.name}.sources")
    with BankBar() as bar:
        try:
            made = make_bank(backbone, data, plan, bar, pick_device(device), folder)
        except KeyboardInterrupt:
            kept = f"finished source networks are kept in {folder}: the same command goes on"
            raise KeyboardInterrupt(kept) from None
    made.bank.save(output)
    if made.spare:
        print(f"{folder} stays: it is of {made.spare} source networks more", file=sys.stderr)
    else:
        SourceFolder.clear(folder)
    report = made.report()
    _print(made, report, output)
    return report


def _print(made: MadeBank, report: dict[str, Any], output: Path) -> None:
    console = stdout()
    table = Table(title="Accuracy on shifts that no source met, on images that none has seen")
    columns = ("shift", "as deployed", "statistics", "coefficients", "everything")
    for name in columns:
        table.add_column(name, justify="left" if name == "shift" else "right")
    for gains in made.gains.values():
        for gain in gains:
            accuracies = (gain.deployed, gain.statistics, gain.coefficients, gain.full)
            table.add_row(gain.shift, *(f"{100 * accuracy:.1f} %" for accuracy in accuracies))
    console.print(table)
    for family, gains in made.gains.items():
        share = share_of_gain(gains)
        said = (
            "full fine-tuning gains nothing over what costs no byte: nothing to compare with"
            if share is None
            else f"{report['coefficients']} coefficients have {100 * share:.0f} % of full "
            "fine-tuning's gain over what costs no byte"
        )
        console.print(f"{family or 'unseen pairs'}: {said}", highlight=False, soft_wrap=True)
        if (fall := hardly_falls(gains)) is not None:
            console.print(
                f"warning: under {family or 'unseen pairs'} the loss falls by {100 * fall:.0f} % "
                "along the bank's directions: it is of little use there; make sources that are "
                "nearer (--shifts), more or bolder ones (--sources, --learning-rate)",
                highlight=False,
                soft_wrap=True,
            )
    console.print(
        f"{output}: {report['bytes']:,} bytes, {report['sections']} sections x "
        f"{report['directions']} directions of {report['sources']} sources",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"SHA-256 {report['sha256']}", highlight=False, soft_wrap=True)
