"""When a run passes from one phase to the next, and what crossed the wire in each."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from experiments.measure.deployment import Deployment
from experiments.measure.relay import Counted, Relay
from recast_core.errors import RecastError
from server.record.history import History
from server.record.registry import Registry
from server.record.rows import Kind, LedgerRow

LOOK_SECONDS = 0.001
# Nanoseconds: a file system's clock is as much behind.
_TICK = 4_000_000
RUN = 1


@dataclass(frozen=True)
class Entry:
    """What a run has recorded: of which kind, about which task and round, in which row.

    Attributes:
        began, recorded: when, nanoseconds of ``time.time_ns``; ``None`` where the registry does
            not say.
    """

    kind: Kind
    task: str | None
    round: int
    row: int
    began: int | None = None
    recorded: int | None = None


@dataclass(frozen=True)
class Phase:
    """What each client's relay counted between two moments.

    Attributes:
        kind: as in the ledger: ``bank`` is the greeting and the bank, ``coefficients`` a round,
            ``metrics`` an evaluation, ``control`` what is none of them.
        task: the task's name, ``None`` where it is about none.
        round: from 1, 0 outside the rounds.
        counted: of each client, in order.
        seconds: how long it took.
    """

    kind: Kind
    task: str | None
    round: int
    counted: tuple[Counted, ...]
    seconds: float

    def rows(self, clients: Sequence[str]) -> Iterator[LedgerRow]:
        """The phase as rows of the ledger's wire layer; ``clients`` are their names there."""
        for client, counted in zip(clients, self.counted, strict=True):
            about = self.task, self.round, client
            yield LedgerRow(*about, "up", self.kind, "wire", counted.up)
            yield LedgerRow(*about, "down", self.kind, "wire", counted.down)


class PhaseClock:
    """Cuts the relays' counts into phases that follow each other without a gap."""

    def __init__(self, relays: Sequence[Relay]) -> None:
        self._relays = relays
        self._last = self.now()
        self._since = time.monotonic()
        self.phases: list[Phase] = []

    def now(self) -> tuple[Counted, ...]:
        """The counts of this moment."""
        return tuple(relay.counted() for relay in self._relays)

    def end(
        self, kind: Kind, task: str | None = None, round_: int = 0,
        moment: int | None = None,
    ) -> Phase:  # fmt: skip
        """End a phase now, or as of ``moment``, nanoseconds of ``time.time_ns``."""
        if moment is None:
            counts = self.now()
        else:
            found = (relay.counted_at(moment) for relay in self._relays)
            # What an earlier phase has taken stays there.
            counts = tuple(
                one if one.up >= then.up and one.down >= then.down else then
                for one, then in zip(found, self._last, strict=True)
            )
        passed = tuple(now - then for now, then in zip(counts, self._last, strict=True))
        began, self._since = self._since, time.monotonic()
        self._last = counts
        phase = Phase(kind, task, round_, passed, self._since - began)
        self.phases.append(phase)
        return phase


class Commits:
    """Tells cheaply whether another process has written to a registry."""

    def __init__(self, registry: Path) -> None:
        """Nothing is opened before there is something to read."""
        self._path = registry
        self._wal = registry.with_name(f"{registry.name}-wal")
        self._connection: sqlite3.Connection | None = None
        self._version = 0

    def changed(self) -> bool:
        """Whether something was committed since the last call."""
        if self._connection is None:
            # Its maker goes over to a write-ahead log first, and must be alone for that.
            if not self._wal.exists():
                return False
            self._connection = sqlite3.connect(self._path)
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        before, self._version = self._version, version
        return bool(version != before)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()


def watch(
    deployment: Deployment, clock: PhaseClock, registry: Path, say: Callable[[str], None]
) -> None:
    """Follow a run to its end, a phase for each entry that it makes in its registry.

    A round ends when its entry says that it was recorded, and what has no time of its own when the
    registry was last written: a server goes on at once, and its next broadcast belongs to the next
    phase, however late somebody looks. Of two entries without a time that were made between two
    looks, of one each millisecond, the first takes the bytes of both.

    Raises:
        RecastError: the run failed.
    """
    seen: set[tuple[Kind, str | None, int]] = set()
    commits = Commits(registry)
    with contextlib.closing(commits):
        going = True
        while going:
            going = deployment.running()
            if not commits.changed() and going:
                time.sleep(LOOK_SECONDS)
                continue
            found = _entries(registry, len(seen))
            written = _written(registry)
            for place, entry in enumerate(found):
                moment = entry.recorded
                if moment is None:
                    moment = min([written, *(one.began for one in found[place:] if one.began)])
                phase = clock.end(entry.kind, entry.task, entry.round, moment)
                seen.add((entry.kind, entry.task, entry.row))
                say(_line(phase))
    clock.end("control")
    if not registry.exists():
        raise RecastError(f"the run ended without a registry at {registry}: look at its logs")
    with History(registry) as history:
        status = history.runs()[-1].status
    if status != "finished":
        raise RecastError(f"the run is {status}, not finished: look at its logs")


def record(registry: Path, phases: Sequence[Phase], clients: Sequence[str]) -> None:
    """Enter what crossed the wire in the run's ledger."""
    with Registry(registry) as opened:
        opened.record_traffic(RUN, [row for phase in phases for row in phase.rows(clients)])


def _written(registry: Path) -> int:
    """When its last entry was made, or a little later; nanoseconds of ``time.time_ns``."""
    now = time.time_ns()
    try:
        return min(now, registry.with_name(f"{registry.name}-wal").stat().st_mtime_ns + _TICK)
    except OSError:  # it was closed
        return now


def _entries(registry: Path, known: int) -> list[Entry]:
    """The registry's entries beyond the first ``known``, in order."""
    if not registry.exists():
        return []
    with History(registry) as history:
        found_tasks = history.tasks(RUN)
        # Clients announce what they have of a task when they have been greeted and have the bank.
        if not any(task.classes for task in found_tasks):
            return []
        tasks = {task.number: task.name for task in found_tasks}
        rounds = sorted(
            (entry for number in tasks for entry in history.rounds(RUN, number)),
            key=lambda entry: entry.id,
        )
        accuracies = history.accuracies(RUN)
    entries = [Entry("bank", None, 0, 0)]
    # An evaluation after a task's last round comes before the next task's rounds.
    waiting = list(accuracies)
    for entry in rounds:
        while waiting and waiting[0].after_task < entry.task:
            found = waiting.pop(0)
            entries.append(Entry("metrics", tasks[found.task], found.round, found.id))
        at = _nanoseconds(entry.recorded)
        began = at - round(1e9 * entry.seconds)
        entries.append(Entry("coefficients", tasks[entry.task], entry.round, entry.id, began, at))
    entries += [Entry("metrics", tasks[found.task], found.round, found.id) for found in waiting]
    return entries[known:]


def _nanoseconds(recorded: str) -> int:
    """The end of the millisecond that the registry names."""
    return round(datetime.fromisoformat(recorded).timestamp() * 1000) * 1_000_000 + 999_999


def _line(phase: Phase) -> str:
    up = sum(counted.up for counted in phase.counted) / len(phase.counted)
    down = sum(counted.down for counted in phase.counted) / len(phase.counted)
    names = {"bank": "greeting and bank", "metrics": f"{phase.task}: evaluation"}
    name = names.get(phase.kind, f"{phase.task} round {phase.round}")
    return f"{name}: {up:,.0f} B up, {down:,.0f} B down a client, {phase.seconds:.1f} s"
