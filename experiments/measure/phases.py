"""When a run passes from one phase to the next, and what crossed the wire in each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.measure.deployment import Deployment
from experiments.relay import Counted, Relay
from recast_core.errors import RecastError
from server.history import History
from server.ledger import Kind, LedgerRow
from server.registry import Registry

LOOK_SECONDS = 0.005
# A file's time is that of the kernel's last tick, up to four milliseconds before it was written.
TICK_NS = 2_000_000
LOOKS = 3
RUN = 1


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


def watch(
    deployment: Deployment, clock: PhaseClock, registry: Path, say: Callable[[str], None]
) -> None:
    """Follow a run to its end, a phase for each entry that it makes in its registry.

    A phase ends when its entry was written, by the time of the registry's file: a server goes on at
    once, and its next broadcast belongs to the next phase. Where two entries were made between two
    looks, five milliseconds apart, the first takes the bytes of both.

    Raises:
        RecastError: the run failed.
    """
    seen: set[tuple[Kind, str | None, int]] = set()
    stamp: tuple[int, ...] = ()
    again = 0
    going = True
    while going:
        going = deployment.running()
        found = _stamp(registry)
        if found == stamp and not again and going:
            time.sleep(LOOK_SECONDS)
            continue
        # A commit can be read a moment after the file has changed.
        again = LOOKS if found != stamp else again - 1
        stamp = found
        for kind, task, number, entry in _entries(registry, len(seen)):
            phase = clock.end(kind, task, number, max(stamp[::2]) + TICK_NS)
            seen.add((kind, task, entry))
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


def _entries(registry: Path, known: int) -> list[tuple[Kind, str | None, int, int]]:
    """Kind, task, round and row of the registry's entries beyond the first ``known``, in order."""
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
    entries: list[tuple[Kind, str | None, int, int]] = [("bank", None, 0, 0)]
    # An evaluation after a task's last round comes before the next task's rounds.
    waiting = list(accuracies)
    for entry in rounds:
        while waiting and waiting[0].after_task < entry.task:
            found = waiting.pop(0)
            entries.append(("metrics", tasks[found.task], found.round, found.id))
        entries.append(("coefficients", tasks[entry.task], entry.round, entry.id))
    entries += [("metrics", tasks[found.task], found.round, found.id) for found in waiting]
    return entries[known:]


def _stamp(registry: Path) -> tuple[int, ...]:
    """Changes whenever something was committed, and costs two system calls."""
    found = []
    for path in (registry, registry.with_name(f"{registry.name}-wal")):
        try:
            status = path.stat()
        except OSError:
            found += [0, 0]
        else:
            found += [status.st_mtime_ns, status.st_size]
    return tuple(found)


def _line(phase: Phase) -> str:
    up = sum(counted.up for counted in phase.counted) / len(phase.counted)
    down = sum(counted.down for counted in phase.counted) / len(phase.counted)
    names = {"bank": "greeting and bank", "metrics": f"{phase.task}: evaluation"}
    name = names.get(phase.kind, f"{phase.task} round {phase.round}")
    return f"{name}: {up:,.0f} B up, {down:,.0f} B down a client, {phase.seconds:.1f} s"
