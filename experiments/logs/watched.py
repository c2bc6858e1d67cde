"""An observer that also tells callbacks, from what the registry has of each round."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from experiments.logs.callback import Callback, RoundFinished, RunStarted, TaskFinished
from recast_core.settings import Settings
from recast_core.start import Start
from server.exchange.observer import Observer
from server.record.history import History
from server.record.ledger import Ledger
from server.record.losses import client_losses
from server.record.opened import PATIENCE
from server.record.place import registry_path


class Watch:
    """What is passed to a run in an observer's place, and is told when it is over.

    Attributes:
        observer: for ``run_federation``.
    """

    def __init__(self, observer: Observer, callbacks: Sequence[Callback]) -> None:
        """Tell ``callbacks`` that the run is over; ``observer`` tells them the rest."""
        self.observer = observer
        self._callbacks = callbacks

    def finished(self, report: Mapping[str, Any]) -> None:
        """All tasks are learned."""
        for callback in self._callbacks:
            callback.run_finished(report)


@contextmanager
def watched(
    observer: Observer, folder: Path, settings: Settings, callbacks: Sequence[Callback]
) -> Iterator[Watch]:
    """Have a run in ``folder`` tell ``observer`` and ``callbacks``, which are closed afterwards."""
    if not callbacks:
        yield Watch(observer, ())
        return
    with ExitStack() as stack:
        for callback in callbacks:
            stack.callback(callback.close)
        telling = Telling(observer, folder, settings, callbacks)
        stack.callback(telling.close)
        yield Watch(telling, callbacks)


class Telling(Observer):
    """Tells one observer everything, and callbacks what is theirs to hear."""

    def __init__(
        self, observer: Observer, folder: Path, settings: Settings, callbacks: Sequence[Callback]
    ) -> None:
        self._observer, self._callbacks = observer, callbacks
        self._folder, self._settings = folder, settings
        self._history: History | None = None
        self._run = self._step = 0
        self._rounds: dict[str, int] = {}
        self._loss: float | None = None

    def close(self) -> None:
        """Close the registry."""
        if self._history is not None:
            self._history.close()

    def run_started(self, start: Start) -> None:
        """Find the run in the registry, where it has just been entered."""
        self._observer.run_started(start)
        self._history = History(registry_path(self._folder))
        self._history.patience = PATIENCE
        run = self._history.last_run()
        assert run is not None
        self._run = run.id
        self._step = sum(self._history.last_rounds(run.id).values())
        event = RunStarted(
            self._folder, run.id, self._settings.as_dict(), start.sha256.hex(), start.sent
        )
        for callback in self._callbacks:
            callback.run_started(event)

    def joined(self, clients: int, delivered: int) -> None:
        """Pass it on."""
        self._observer.joined(clients, delivered)

    def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
        """Pass it on; remember how many rounds there will be."""
        self._rounds[task] = rounds
        self._observer.round_started(task, round_, rounds, clients)

    def learned(self, task: str, round_: int, loss: float, clients: int) -> None:
        """Pass it on; remember it for the round's event."""
        self._loss = loss
        self._observer.learned(task, round_, loss, clients)

    def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
        """Read what the registry has of the round."""
        self._observer.round_finished(task, round_, updates, seconds)
        history = self._history
        assert history is not None
        self._step += 1
        number = history.task(self._run, task).number
        row = history.round(self._run, number, round_)
        up, down = Ledger(history).of_round(self._run, task, round_)
        event = RoundFinished(
            task=task,
            round=round_,
            rounds=self._rounds[task],
            step=self._step,
            updates=updates,
            examples=row.examples,
            seconds=seconds,
            bytes_up=up,
            bytes_down=down,
            coefficients=history.coefficients(self._run, number, round_).copy(),
            accuracy=row.accuracy,
            loss=self._loss,
            losses=self._losses(number, round_),
        )
        self._loss = None
        for callback in self._callbacks:
            callback.round_finished(event)

    def _losses(self, task: int, round_: int) -> dict[str, float]:
        if self._loss is None or self._history is None:
            return {}
        names = self._history.client_names(self._run)
        found = client_losses(self._history, self._run, task, round_)
        return {names.get(client, client): loss for client, loss in found.items()}

    def evaluated(self, task: str, accuracy: float, without: float | None, clients: int) -> None:
        """Pass it on to all."""
        self._observer.evaluated(task, accuracy, without, clients)
        event = TaskFinished(task, self._step, accuracy, without, clients)
        for callback in self._callbacks:
            callback.task_finished(event)

    def refused(self, client: str, reason: str, detail: str) -> None:
        """Pass it on."""
        self._observer.refused(client, reason, detail)

    def overdue(self, clients: Collection[str]) -> None:
        """Pass it on."""
        self._observer.overdue(clients)
