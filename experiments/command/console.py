"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.report.privacy import privacy_line
from experiments.report.summary import bank_sent
from recast_core.backbones import load_backbone
from server.app import RunResult
from server.record.place import place_of


def stdout() -> Console:
    """Standard output; wide where nobody's terminal sets the width, so that a file is not cut."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def print_closing(report: dict[str, Any], result: RunResult, backbone: str) -> None:
    """Print what is left to say of a run: its closing table, and where its registry is.

    Args:
        report: of the run, for its file.
        result: of the run.
        backbone: its name.
    """
    print_summary(report, whole_model_bytes(backbone), bank_sent(result))
    print(f"registry: {place_of(result.registry)}")


def whole_model_bytes(name: str) -> int:
    """The float32 weights of a backbone without its classifier: what federated averaging sends."""
    backbone = load_backbone(name)
    return 4 * sum(
        parameter.numel()
        for name, parameter in backbone.model.named_parameters()
        if not name.startswith(f"{backbone.head}.")
    )


def size_text(count: int) -> str:
    """Bytes as a person reads them, in kB or MB."""
    return f"{count / 1e6:.1f} MB" if count >= 10**6 else f"{count / 1e3:.1f} kB"


_KEPT = ("deployed_accuracy", "zero_byte_accuracy", "accuracy")
_FITTED = ("accuracy", "head_only_accuracy")


def print_summary(report: dict[str, Any], model_bytes: int, sent: str) -> None:
    """The closing table of a run; ``sent`` says to whom its bank was sent."""
    table = Table(title="What each task gained, and cost one client")
    kept = all("zero_byte_accuracy" in task for task in report["tasks"])
    own = ("as deployed", "best zero-byte", "coefficients") if kept else ("accuracy", "head only")
    columns = ("task", *own, "median", "update", "up", "down", "FedAvg*")
    for name in columns:
        table.add_column(name, justify="left" if name == "task" else "right", no_wrap=True)
    for task in report["tasks"]:
        clients = max(task["clients"], 1)
        table.add_row(
            task["name"],
            *(_percent(task[name]) for name in (_KEPT if kept else _FITTED)),
            _percent(task["median_accuracy"]),
            f"{task['update_bytes']:,} B",
            f"{task['message_bytes_up'] / clients:,.0f} B",
            f"{task['message_bytes_down'] / clients:,.0f} B",
            size_text(2 * task["rounds"] * model_bytes),
        )
    console = stdout()
    console.print(table)
    measured = any(task["accuracy"] is not None for task in report["tasks"])
    told = "accuracies are over all test images, median is that of the clients' own"
    if not measured:
        told = "no accuracy: no client told of any; try a task with `recast tasks export`"
    console.print(f"  {told}", style="dim", highlight=False)
    console.print(
        "* computed, not sent: float32 weights without the classifier, both ways in every round",
        style="dim",
        highlight=False,
    )
    for task in report["tasks"]:
        if "hiding_bytes_up" in task:
            each = task["rounds"] * max(task["clients"], 1)
            up, down = (task[f"hiding_bytes_{way}"] / each for way in ("up", "down"))
            console.print(
                f"{task['name']}: hiding each update in a sum took {up:,.0f} B up and "
                f"{down:,.0f} B down of these, a client and round",
                highlight=False,
            )
    for task, count in report.get("without_images", {}).items():
        who = "1 client has" if count == 1 else f"{count} clients have"
        console.print(f"{task}: {who} no training images and took no part")
    console.print(_run_line(report, sent, measured=measured), highlight=False)
    if "privacy" in report:
        console.print(privacy_line(report["privacy"]), highlight=False)
    if "fleet" in report:
        console.print(_fleet_line(report["fleet"]), highlight=False)


def _run_line(report: dict[str, Any], sent: str, *, measured: bool) -> str:
    """What was sent of a bank, what was forgotten where it could be, and how long it took."""
    bank = report["bank"]
    parts = [
        f"bank: {bank['templates']} templates, {bank['coefficients']:,} coefficients sent, {sent}"
        if bank["templates"]
        else f"no bank: {bank['coefficients']:,} numbers sent"
    ]
    if measured and len(report["tasks"]) > 1:
        change = 100 * report["forgetting"]["max_abs_change"]
        parts.append(f"forgetting: {change:.1f} points at most")
    parts.append(f"{report['round_seconds']:.2f} s a round, {report['seconds']:.0f} s in all")
    return " | ".join(parts)


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
