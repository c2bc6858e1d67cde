"""The numbers of an event by name, as loggers plot them."""

from __future__ import annotations

import numpy as np

from experiments.logs.callback import RoundFinished, TaskFinished

ROUND = (
    "updates", "examples", "seconds", "bytes_up", "bytes_down", "coefficients_norm", "accuracy",
)  # fmt: skip
# Beside them, where it is known.
LOSS = "loss"
TASK = ("accuracy", "without_updates", "clients")


def of_round(event: RoundFinished) -> dict[str, float]:
    """What a round has of ``ROUND`` and ``LOSS``; without what was not measured."""
    found = {name: float(getattr(event, name)) for name in ROUND[:5]}
    found["coefficients_norm"] = float(np.linalg.norm(event.coefficients))
    measured = {"accuracy": event.accuracy, LOSS: event.loss}
    return found | {name: value for name, value in measured.items() if value is not None}


def of_task(event: TaskFinished) -> dict[str, float]:
    """What a task has of ``TASK``; accuracies are fractions."""
    found = {"accuracy": event.accuracy, "clients": float(event.clients)}
    return found if event.without is None else found | {"without_updates": event.without}
