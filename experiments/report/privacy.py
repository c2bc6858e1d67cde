"""What a run has spent of its clients' privacy, as JSON values from its registry."""

from __future__ import annotations

from typing import Any

from server.record.registry import Registry

UNCOVERED = "accuracies and counts of images are exact: they are not covered"
UNTOLD = "clients tell neither accuracies nor counts of images"
SIMULATED = "simulated: the noise follows from the seed and protects nobody"


def privacy(registry: Registry, run: int) -> dict[str, Any] | None:
    """The account of a private run, ``None`` for another.

    ``epsilon`` is of all rounds of all tasks together, ``tasks`` of each task by itself.
    """
    spent = registry.spendings(run)
    if not spent:
        return None
    names = {task.number: task.name for task in registry.tasks(run)}
    config = next(entry.config for entry in registry.runs() if entry.id == run)
    last = spent[-1]
    return {
        "kind": last.kind,
        "epsilon": last.epsilon,
        "budget": config.get("dp-epsilon"),
        "delta": last.delta,
        "seeded": any(row.seeded for row in spent),
        "tasks": {names[row.task]: row.task_epsilon for row in spent},
        "rounds": [
            {
                "task": names[row.task],
                "round": row.round,
                "noise": row.noise,
                "rate": row.rate,
                "sampling": row.sampling,
                "clip": row.clip,
                "within": row.within,
                "task_epsilon": row.task_epsilon,
                "epsilon": row.epsilon,
            }
            for row in spent
        ],
    }


def privacy_line(found: dict[str, Any]) -> str:
    """The account in one line for a person."""
    tasks = ", ".join(f"{name} {epsilon:.3g}" for name, epsilon in found["tasks"].items())
    beside = UNCOVERED if found["kind"] == "central" or found["seeded"] else UNTOLD
    noise = SIMULATED if found["seeded"] else "noise from the system's randomness"
    return (
        f"privacy of a client ({found['kind']}): epsilon {found['epsilon']:.4g} of "
        f"{found['budget']:g} at delta {found['delta']:g} over all tasks (each alone: {tasks}) | "
        f"{noise} | {beside}"
    )
