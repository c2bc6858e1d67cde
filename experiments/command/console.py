"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import resource
import sys
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from experiments.command.caution import warn_of_many
from experiments.report.summary import bank_bytes_sent
from recast_core.backbones import load_backbone
from recast_core.start import Start
from server.app import RunResult
from server.exchange.observer import LOST


def stdout() -> Console:
    """Standard output; wide where nobody's terminal sets the width, so that a file is not cut."""
    return Console() if sys.stdout.isatty() else Console(width=160)


class _Pace(ProgressColumn):
    """Clients answered in a second of late, and the memory that this process has taken."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        speed = "" if task.speed is None else f"{task.speed:.1f} clients/s, "
        return Text(f"{speed}{_peak_mib():.0f} MiB", style="dim")


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


class ProgressObserver:
    """An observer that draws one bar for the run: a step for each client's round."""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("client rounds"),
            TimeElapsedColumn(),
            _Pace(),
            console=self._console,
            disable=not self._live,
        )
        self._bar = self._progress.add_task("greeting clients", total=None)
        self._said: set[tuple[str, str]] = set()
        self._same = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def answered(self) -> None:
        """A client has answered."""
        if self._progress.tasks[0].total is not None:
            self._progress.advance(self._bar)

    def run_started(self, start: Start) -> None:
        """Warn of a configuration that trains many coefficients."""
        warn_of_many(start)

    def joined(self, clients: int, delivered: int) -> None:
        """Say who is there."""
        if self._same:
            self._line(f"left out for reasons given above: {self._same} times more")
            self._same = 0
        self._line(f"{clients} clients ready, bank sent to {delivered}")

    def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
        """Move the bar's label on."""
        if self._progress.tasks[0].total is None:
            self._progress.update(self._bar, total=self._tasks * (rounds + 1) * clients)
        self._progress.update(self._bar, description=f"{task} {round_}/{rounds}")

    def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
        """Say that a round is done."""
        if not self._live:
            pace = f"{updates / max(seconds, 1e-9):.1f} clients/s, {_peak_mib():.0f} MiB"
            self._line(f"{task} round {round_}: {updates} updates, {seconds:.1f} s ({pace})")

    def evaluated(self, task: str, accuracy: float, without: float | None, clients: int) -> None:
        """Say how well the task went."""
        self._line(
            f"{task}: accuracy {100 * accuracy:.1f} %, without updates {_percent(without)}, "
            f"on {clients} clients"
        )

    def refused(self, client: str, reason: str, detail: str) -> None:
        """Warn of what was left out, once; a simulated fleet's losses are the closing table's."""
        if reason in LOST.values() or (reason == "no-data" and "share" in detail):
            return
        if (reason, detail) in self._said:
            self._same += 1
            return
        self._said.add((reason, detail))
        self._line(f"client {client} left out ({reason}): {detail}")

    def overdue(self, clients: Collection[str]) -> None:
        """Say who is no longer waited for."""
        if clients:
            self._line(f"not waited for any more: {', '.join(sorted(clients))}")

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_closing(report: dict[str, Any], result: RunResult, backbone: str) -> None:
    """Print what is left to say of a run: its closing table, and where its registry is.

    Args:
        report: of the run, for its file.
        result: of the run.
        backbone: its name.
    """
    print_summary(report, whole_model_bytes(backbone), bank_bytes_sent(result))
    print(f"registry: {result.registry}")


def whole_model_bytes(name: str) -> int:
    """The float32 weights of a backbone without its classifier: what federated averaging sends."""
    backbone = load_backbone(name)
    return 4 * sum(
        parameter.numel()
        for name, parameter in backbone.model.named_parameters()
        if not name.startswith(f"{backbone.head}.")
    )


_KEPT = ("deployed_accuracy", "zero_byte_accuracy", "accuracy")
_FITTED = ("accuracy", "head_only_accuracy")


def print_summary(report: dict[str, Any], model_bytes: int, bank_bytes: int) -> None:
    """The closing table of a run."""
    table = Table(title="What each task gained, and cost one client")
    kept = all("zero_byte_accuracy" in task for task in report["tasks"])
    own = ("as deployed", "best zero-byte", "coefficients") if kept else ("accuracy", "head only")
    columns = ("task", *own, "update", "up", "down", "FedAvg*")
    for name in columns:
        table.add_column(name, justify="left" if name == "task" else "right", no_wrap=True)
    for task in report["tasks"]:
        clients = max(task["clients"], 1)
        table.add_row(
            task["name"],
            *(_percent(task[name]) for name in (_KEPT if kept else _FITTED)),
            f"{task['update_bytes']} B",
            f"{task['message_bytes_up'] / clients:,.0f} B",
            f"{task['message_bytes_down'] / clients:,.0f} B",
            f"{2 * task['rounds'] * model_bytes / 1e6:.1f} MB",
        )
    console = stdout()
    console.print(table)
    console.print(
        "* computed, not sent: float32 weights without the classifier, both ways in every round",
        style="dim",
        highlight=False,
    )
    for task, count in report.get("without_images", {}).items():
        who = "1 client has" if count == 1 else f"{count} clients have"
        console.print(f"{task}: {who} no training images and took no part")
    bank = report["bank"]
    console.print(
        f"bank: {bank['templates']} templates, {bank['coefficients']} coefficients sent, "
        f"{bank_bytes:,} B to all clients, once | forgetting: "
        f"{100 * report['forgetting']['max_abs_change']:.1f} points at most | "
        f"{report['round_seconds']:.2f} s a round, {report['seconds']:.0f} s in all",
        highlight=False,
    )
    if "fleet" in report:
        console.print(_fleet_line(report["fleet"]), highlight=False)


def _fleet_line(fleet: dict[str, Any]) -> str:
    lost = ", ".join(f"{count} {reason}" for reason, count in sorted(fleet["lost"].items()))
    rounds = [s for task in fleet["tasks"].values() for s in task["round_seconds"].values()]
    line = f"fleet: answers lost: {lost or 'none'}"
    if rounds:
        line += f" | {sum(rounds) / len(rounds):.1f} s a round, simulated"
    airtime = [s for task in fleet["tasks"].values() for s in task["airtime"].values()]
    if airtime:
        line += f" | {max(airtime):.2f} s on air at most for a client and task"
    return line


def _percent(fraction: float | None) -> str:
    return "not measured" if fraction is None else f"{100 * fraction:.1f} %"
