"""When a run passes from one phase to the next, and what crossed the wire in each."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from experiments.measure.deployment import Deployment
from experiments.measure.relay import Counted, Relay
from recast_core.errors import RecastError
from server.record.history import History
from server.record.registry import Registry
from server.record.rows import Kind, LedgerRow

LOOK_SECONDS = 0.001
RUN = 1


@dataclass(frozen=True)
class Entry:
    """What a run has recorded: of which kind, about which task and round.

    Attributes:
        recorded: when, nanoseconds of ``time.time_ns``; ``None`` where the registry does not say.
    """

    kind: Kind
    task: str | None
    round: int
    recorded: int | None


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

    A phase ends when its entry was recorded: a server goes on at once, and what it sends next
    belongs to the next phase, however late somebody looks. The bank's ends as the first round
    begins.

    Raises:
        RecastError: the run failed.
    """
    known = 0
    commits = Commits(registry)
    with contextlib.closing(commits):
        going = True
        while going:
            going = deployment.running()
            if not commits.changed() and going:
                time.sleep(LOOK_SECONDS)
                continue
            for entry in _entries(registry, going)[known:]:
                phase = clock.end(entry.kind, entry.task, entry.round, entry.recorded)
                known += 1
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


def _entries(registry: Path, going: bool) -> list[Entry]:
    """The registry's entries in order; none before the first round while the run is going."""
    if not registry.exists():
        return []
    with History(registry) as history:
        tasks = {task.number: task.name for task in history.tasks(RUN)}
        rounds = [row for number in tasks for row in history.rounds(RUN, number)]
        accuracies = history.accuracies(RUN)
    entries = [
        Entry("coefficients", tasks[row.task], row.round, _nanoseconds(row.recorded))
        for row in rounds
    ]
    entries += [
        Entry("metrics", tasks[row.task], row.round, _nanoseconds(row.recorded))
        for row in accuracies
        if row.recorded is not None
    ]
    entries.sort(key=lambda entry: entry.recorded or 0)
    began = min(
        (_nanoseconds(row.recorded) - round(1e9 * row.seconds) for row in rounds), default=None
    )
    if began is None and going:
        return []
    return [Entry("bank", None, 0, began), *entries]


def _nanoseconds(recorded: str) -> int:
    """A time of the registry, to the microsecond."""
    since = datetime.fromisoformat(recorded) - datetime.fromtimestamp(0, UTC)
    return (since // timedelta(microseconds=1)) * 1000


def _line(phase: Phase) -> str:
    up = sum(counted.up for counted in phase.counted) / len(phase.counted)
    down = sum(counted.down for counted in phase.counted) / len(phase.counted)
    names = {"bank": "greeting and bank", "metrics": f"{phase.task}: evaluation"}
    name = names.get(phase.kind, f"{phase.task} round {phase.round}")
    return f"{name}: {up:,.0f} B up, {down:,.0f} B down a client, {phase.seconds:.1f} s"
