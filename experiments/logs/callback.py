"""The one protocol by which a run tells others how it goes: loggers and a user's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RunStarted:
    """A run begins, or goes on; nobody has been greeted.

    Attributes:
        folder: of its registry.
        run: its number in the registry.
        settings: names with dashes to values.
        bank: identity of the bank, hexadecimal.
        coefficients: how many numbers an update has.
    """

    folder: Path
    run: int
    settings: Mapping[str, Any]
    bank: str
    coefficients: int


@dataclass(frozen=True, eq=False)
class RoundFinished:
    """A round of one task is aggregated and in the registry.

    Attributes:
        task: its name.
        round: of the task, from 1.
        rounds: that the task has.
        step: rounds of the run that are finished, this one included.
        updates: that were averaged.
        examples: training images behind them.
        seconds: that the round took.
        bytes_up: serialised messages of this round to the server, all clients; without those of
            the evaluation that follows the last round.
        bytes_down: likewise, from the server.
        coefficients: of the task after the round, float32 ``[D]``, a copy.
        accuracy: a fraction, where this round was evaluated.
        loss: mean over the images of the clients' training losses in their last pass, where known:
            of clients in this process, and of others with ``report_loss``.
        losses: each client's, by its name.
    """

    task: str
    round: int
    rounds: int
    step: int
    updates: int
    examples: int
    seconds: float
    bytes_up: int
    bytes_down: int
    coefficients: NDArray[np.float32]
    accuracy: float | None = None
    loss: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskFinished:
    """A task has had its last round and was evaluated; accuracies are fractions.

    Attributes:
        task: its name.
        step: rounds of the run that are finished.
        accuracy: over all clients' test images.
        without: the best that was measured without an update, where anything was.
        clients: that evaluated.
    """

    task: str
    step: int
    accuracy: float
    without: float | None
    clients: int


class Callback:
    """What a run calls, from the server's thread and in order; override what you want to hear.

    What a callback of yours raises ends the run, as a Ctrl-C would: finished rounds stay in the
    registry, and the same run folder goes on. ``close`` is called in any case.
    """

    def run_started(self, event: RunStarted) -> None:
        """A run begins, or goes on."""

    def round_finished(self, event: RoundFinished) -> None:
        """A round of a task is over."""

    def task_finished(self, event: TaskFinished) -> None:
        """A task is learned and evaluated."""

    def run_finished(self, report: Mapping[str, Any]) -> None:
        """All tasks are learned; ``report`` is what ``--json`` writes."""

    def close(self) -> None:
        """Nothing more will be told, whether the run finished or not."""


class Calls(Callback):
    """Plain functions as a callback."""

    def __init__(
        self,
        on_round: Callable[[RoundFinished], object] | None = None,
        on_task: Callable[[TaskFinished], object] | None = None,
    ) -> None:
        """Call ``on_round`` after each round and ``on_task`` after each task."""
        self._on_round, self._on_task = on_round, on_task

    def round_finished(self, event: RoundFinished) -> None:
        """Call the function for rounds."""
        if self._on_round is not None:
            self._on_round(event)

    def task_finished(self, event: TaskFinished) -> None:
        """Call the function for tasks."""
        if self._on_task is not None:
            self._on_task(event)
