"""``recast tasks``: what a run has learned, and what a running server is to learn next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from experiments.command.console import stdout
from experiments.command.run_folder import find_task, opened
from experiments.report.baselines import beside
from recast_core.classes import some
from recast_core.task_spec import parse_task
from server.record import control
from server.record.ledger import Ledger
from server.record.lock import hold, is_held
from server.record.registry import Accuracy, Registry, Run, Task
from server.record.rewinding import ask_rewind, reopen, rewind_asked

_FITTED = {"accuracy": "accuracy", "head only": "head_only_accuracy"}
_KEPT = {
    "as deployed": "deployed_accuracy",
    "best zero-byte": "zero_byte_accuracy",
    "accuracy": "accuracy",
}
_BASELINES = {
    "deployed": "as deployed",
    "statistics": "own label mix, and statistics where they help",
    "local head": "a head of each client's own",
    "either head": "the better head of each client",
}


def list_tasks(run: Path | None) -> dict[str, Any]:
    """Print the tasks of a run and return them as JSON values."""
    with opened(run) as (registry, found):
        report: dict[str, Any] = {
            "run": _run(registry, found),
            "tasks": [_task(registry, found, task) for task in registry.tasks(found.id)],
        }
    about = report["run"]
    table = Table(title=f"run {about['id']} in {about['folder']}: {about['status']}")
    kept = any("zero_byte_accuracy" in task for task in report["tasks"])
    measures = _KEPT if kept else _FITTED
    for name in ("task", "data", "status", "rounds", "clients", *measures):
        table.add_column(name, justify="left" if name in ("task", "data", "status") else "right")
    for task in report["tasks"]:
        table.add_row(
            task["name"],
            task["source"].partition("=")[2] or "the clients' own",
            task["status"],
            f"{task['rounds']}/{task['planned']}",
            str(task["clients"]),
            *(_percent(task.get(name)) for name in measures.values()),
        )
    stdout().print(table)
    return report


def show(name: str, run: Path | None) -> dict[str, Any]:
    """Print all about one task and return it as JSON values."""
    with opened(run) as (registry, found):
        task = find_task(registry, found, name)
        rounds = registry.rounds(found.id, task.number)
        totals = Ledger(registry).totals(found.id)
        names = {other.number: other.name for other in registry.tasks(found.id)}
        report: dict[str, Any] = {
            **_task(registry, found, task),
            "run": _run(registry, found),
            "bytes": {
                f"{layer}_{direction}": totals.get((name, direction, layer), 0)
                for layer in ("payload", "message")
                for direction in ("up", "down")
            },
            "history": [
                {
                    "round": entry.round,
                    "clients": entry.clients,
                    "examples": entry.examples,
                    "seconds": entry.seconds,
                    "recorded": entry.recorded,
                }
                for entry in rounds
            ],
            "evaluations": [
                {
                    "after_task": names[entry.after_task],
                    "round": entry.round,
                    "accuracy": entry.accuracy,
                    "head_only_accuracy": entry.head_only_accuracy,
                    "examples": entry.examples,
                    "clients": entry.clients,
                }
                for entry in registry.accuracies(found.id)
                if entry.task == task.number
            ],
            "rewinds": [
                {"from": entry.before, "to": entry.round, "asked": entry.asked, "done": entry.done}
                for entry in registry.rewinds(found.id)
                if entry.task == task.number
            ],
            "class_names": list(registry.class_lists(found.id).get(task.number, ())),
            "coefficients": (
                registry.coefficients(found.id, task.number).tolist() if rounds else None
            ),
        }
    _print_task(report)
    return report


def add(run: Path, spec: str) -> dict[str, Any]:
    """Ask a run's server to learn a further task."""
    parsed = parse_task(spec)
    with opened(run) as (registry, found):
        number = control.add_task(registry, found.id, parsed)
        running = is_held(registry.path.parent)
    when = "from its next round on" if running else "when it is started again with its settings"
    print(f"task {parsed.name} is number {number} of run {found.id}: the server learns it {when}")
    return {"run": found.id, "task": parsed.name, "number": number, "running": running}


def rewind(name: str, round_: int, run: Path | None) -> dict[str, Any]:
    """Let a task go back to what it was after a round: now, or before a server's next round."""
    with opened(run) as (registry, found):
        folder = registry.path.parent
        running = is_held(folder)
        if running:
            ask_rewind(registry, found.id, name, round_)
        else:
            with hold(folder):
                ask_rewind(registry, found.id, name, round_)
                rewind_asked(registry, found.id)
                reopen(registry, found.id)
    when = "before its server's next round" if running else "now; its command goes on from there"
    print(f"task {name} of run {found.id} goes back to round {round_}: {when}")
    return {"run": found.id, "task": name, "round": round_, "running": running}


def close(run: Path) -> dict[str, Any]:
    """Tell a run's server that no further task will come."""
    with opened(run) as (registry, found):
        control.close(registry, found.id)
    print(f"run {found.id} is closed: its server ends when all its tasks are learned")
    return {"run": found.id, "closed": True}


def _run(registry: Registry, run: Run) -> dict[str, Any]:
    return {
        "folder": str(registry.path.parent),
        "id": run.id,
        "status": run.status,
        "closed": run.closed,
        "started": run.started,
        "finished": run.finished,
        "backbone": run.config.get("backbone"),
        "bank": run.bank_sha256.hex(),
    }


def _task(registry: Registry, run: Run, task: Task) -> dict[str, Any]:
    done = registry.last_rounds(run.id).get(task.number, 0)
    planned = int(run.config.get("rounds", done))
    own: list[Accuracy] = [a for a in registry.accuracies(run.id) if a.task == task.number]
    if done >= planned > 0:
        status = "learned"
    elif run.status != "running":
        status = "stopped"
    else:
        status = "learning" if done else "waiting"
    return {
        "number": task.number,
        "name": task.name,
        "source": task.source,
        "status": status,
        "rounds": done,
        "planned": planned,
        "classes": task.classes,
        "clients": task.clients,
        "examples": task.examples,
        "accuracy": own[0].accuracy if own else None,
        "median_accuracy": registry.medians(run.id).get(own[0].id) if own else None,
        "head_only_accuracy": own[0].head_only_accuracy if own else None,
        **beside(registry.baselines(run.id).get(task.number, {})),
    }


def _print_task(report: dict[str, Any]) -> None:
    table = Table(title=f"task {report['name']}", show_header=False)
    for label, value in (
        ("data", report["source"].partition("=")[2] or "the clients' own"),
        ("status", report["status"]),
        ("rounds", f"{report['rounds']}/{report['planned']}"),
        ("classes", _classes(report)),
        ("clients", str(report["clients"])),
        ("training images", f"{report['examples']:,}"),
        ("message bytes up, all clients", f"{report['bytes']['message_up']:,}"),
        ("message bytes down, all clients", f"{report['bytes']['message_down']:,}"),
    ):
        table.add_row(label, value)
    for entry in report["rewinds"]:
        when = f"on {entry['done']}" if entry["done"] else "asked, not yet done"
        table.add_row("rewound", f"from round {entry['from']} to {entry['to']}, {when}")
    kept = "zero_byte_accuracy" in report
    for name, title in _BASELINES.items() if kept else ():
        if name in report["baselines"]:
            table.add_row(title, _percent(report["baselines"][name]))
    for entry in report["evaluations"]:
        head_only = "" if kept else f" (head only {_percent(entry['head_only_accuracy'])})"
        table.add_row(
            f"accuracy after {entry['after_task']}", _percent(entry["accuracy"]) + head_only
        )
    stdout().print(table)


def _classes(report: dict[str, Any]) -> str:
    names = report["class_names"]
    return f"{report['classes']}: {some(names)}" if names else str(report["classes"])


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"
