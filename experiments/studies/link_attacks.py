"""What ten attacks on the link cost honest clients: ``python -m experiments.studies.link_attacks``.

Real processes: a server and two clients at work share a core, whoever attacks has one of its own.
Seconds with an attack and without alternate, since other work on the machine changes all rates; it
does not change how much processor time a round takes the server and its clients, which is told too.
Without an attack that other core computes something, so that it makes as much room as with one.
Clients are warm before anything counts. The first stretch is told apart: in it a server waits,
once, for whoever has joined and does not answer.
At the end a third honest client joins while the attack goes on. Prints a table in Markdown, and 1
is the exit status where a limit is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import fmean

from experiments.command.program import environment, program
from experiments.measure.relay import free_port
from experiments.studies import link_foes
from experiments.studies.chaos import Site
from experiments.studies.link_foes import FOES
from experiments.studies.lives import FORK, killed

NAMES = ("edge-1", "edge-2")
NEWCOMER, FOE = "edge-3", "evil"
# What has to hold: a share of the rounds per second, of memory, bytes of log per second, and for
# how long a newcomer may have to wait.
KEPT, MEMORY, LOG, SECONDS_TO_JOIN = 0.7, 1.15, 2000, 20.0
PATIENCE = 240.0


@dataclass(frozen=True)
class Times:
    """Seconds of one stretch, how many there are of each kind, and the rounds before them."""

    stretch: float = 4.0
    cycles: int = 4
    settle: float = 0.5
    warm: int = 60


@dataclass(frozen=True)
class Row:
    """What one attack came to.

    Attributes:
        rate: rounds per second while nobody attacks.
        kept: the share of it that is left under attack.
        first: the share that was left in the first stretch, which ``kept`` is not of.
        time: processor milliseconds of a round, without an attack and with it.
        missed: rounds that a client that was there took no part in.
        waited: seconds for which a newcomer had to wait while the attack went on; ``None`` where
            it was kept out.
        memory: of the server, in MB: before, at most, and after.
        log: bytes per second that the server wrote under attack.
    """

    attack: str
    rate: float
    kept: float
    first: float
    time: tuple[float, float]
    missed: int
    waited: float | None
    memory: tuple[float, float, float]
    log: float

    @property
    def passes(self) -> bool:
        """Whether all limits hold."""
        before, _, after = self.memory
        fine = self.kept >= KEPT and after <= MEMORY * before and self.log <= LOG
        return fine and self.waited is not None and not self.missed

    def __str__(self) -> str:
        before, most, after = self.memory
        waited = "kept out" if self.waited is None else f"{self.waited:.1f} s"
        kept = f"{100 * self.first:.0f} % | {100 * self.kept:.0f} %"
        kept += f" | {self.time[0]:.0f} to {self.time[1]:.0f}"
        return (
            f"| `{self.attack}` | {self.rate:.1f} | {kept} | {self.missed} | {waited}"
            f" | {before:.0f}, {most:.0f}, {after:.0f} | {self.log / 1000:.1f} |"
        )


HEAD = (
    "| attack | rounds/s without | kept at first | then | CPU ms a round | rounds missed "
    "| a newcomer waits | server's MB before, at most, after | log kB/s |"
    "\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def apart() -> tuple[set[int], set[int]]:
    """The cores of the honest and of who attacks; the same where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[0]}, {cores[-1]}


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """What is started meanwhile stays on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Honest:
    """A server and its clients at work."""

    def __init__(self, site: Site) -> None:
        """Start them; returns when rounds come."""
        self.site = site
        self.log = site.root / "run-server.log"
        with pinned(apart()[0]):
            self.server = self._start(site.serve_command("run"), "server")
            self.clients = [self._start(site.join_command(name, "run"), name) for name in NAMES]
        # This one has everything imported: what it waits for is the server alone.
        self.third: BaseProcess | None = None
        self.work(5)

    def work(self, rounds: int) -> None:
        """Wait until so many are finished."""
        ends = time.monotonic() + PATIENCE
        while self.rounds() < rounds:
            if time.monotonic() > ends or self.server.poll() is not None:
                self.end()
                raise RuntimeError(f"no round: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)

    def rounds(self, where: str = "") -> int:
        """How many are finished."""
        found = self.site.read("run", f"SELECT count(*) FROM rounds {where}")
        return int(str(found[0][0])) if found else 0

    def megabytes(self) -> float:
        """What the server has in memory."""
        fields = Path(f"/proc/{self.server.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def seconds(self) -> float:
        """Of processor time that the server and its clients have had."""
        total = 0.0
        for process in (self.server, *self.clients):
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total

    def newcomer(self) -> float | None:
        """How long a third client takes to have a part in a round; ``None`` where it has none."""
        began = time.monotonic()
        with pinned(apart()[0]):
            self.third = self.site.join(NEWCOMER, "run")
        while time.monotonic() - began < SECONDS_TO_JOIN:
            if self.rounds("WHERE clients = 3"):
                return time.monotonic() - began
            time.sleep(0.1)
        return None

    def end(self) -> None:
        """Stop all."""
        if self.third is not None:
            killed(self.third)
        for process in (self.server, *self.clients):
            process.kill()
            process.wait()

    def _start(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        with (self.site.root / f"run-{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*program(), *command], stdout=log, stderr=log, env={**os.environ, **environment()}
            )


def attack(name: str, honest: Honest, times: Times) -> Row:
    """What an attack comes to, on a server of its own."""
    where = link_foes.Site(honest.site.port, honest.site.root / "certs", FOE)
    honest.work(times.warm)
    memory = [honest.megabytes()]
    calm, under, logged = [_calm(honest, times, where)], [], []
    missed = 0
    for _ in range(1 + times.cycles):
        with _foe(name, where):
            time.sleep(times.settle)
            before, size = honest.rounds(), honest.log.stat().st_size
            began = time.monotonic()
            under.append(_stretch(honest, times, memory))
            seconds = time.monotonic() - began
            logged.append((honest.log.stat().st_size - size) / seconds)
            missed += honest.rounds(f"WHERE clients < {len(NAMES)} AND id > {before}")
        calm.append(_calm(honest, times, where))
    with _foe(name, where):
        time.sleep(times.settle)
        waited = honest.newcomer()
        memory.append(honest.megabytes())
    time.sleep(3)
    usual = max(1e-9, fmean(one.rate for one in calm))
    return Row(
        attack=name,
        rate=usual,
        kept=fmean(one.rate for one in under[1:]) / usual,
        first=under[0].rate / usual,
        time=(_time(calm), _time(under[1:])),
        missed=missed,
        waited=waited,
        memory=(memory[0], max(memory), honest.megabytes()),
        log=max(logged),
    )


def _calm(honest: Honest, times: Times, where: link_foes.Site) -> _Stretch:
    """Without an attack, while the other core has as much to do."""
    with _foe("nothing", where):
        time.sleep(times.settle)
        return _stretch(honest, times)


@dataclass(frozen=True)
class _Stretch:
    """Rounds, their number per second, and the processor seconds that they took."""

    rounds: int
    rate: float
    busy: float


def _time(stretches: Sequence[_Stretch]) -> float:
    """Processor milliseconds of a round."""
    return 1000 * sum(s.busy for s in stretches) / max(1, sum(s.rounds for s in stretches))


def _stretch(honest: Honest, times: Times, memory: list[float] | None = None) -> _Stretch:
    """Count rounds for some seconds, or until there is one."""
    began, before, busy = time.monotonic(), honest.rounds(), honest.seconds()
    while (passed := time.monotonic() - began) < times.stretch or (
        honest.rounds() == before and passed < PATIENCE
    ):
        time.sleep(0.1)
        if memory is not None:
            memory.append(honest.megabytes())
    rounds, busy = honest.rounds() - before, honest.seconds() - busy
    return _Stretch(rounds, rounds / (time.monotonic() - began), busy)


@contextmanager
def _foe(name: str, where: link_foes.Site) -> Iterator[None]:
    """Somebody attacks meanwhile."""
    with pinned(apart()[1]):
        process = FORK.Process(target=FOES[name], args=(where,), daemon=True)
        process.start()
    try:
        yield
    finally:
        killed(process)


def measure(name: str, times: Times, options: Sequence[str] = ()) -> Row:
    """Start a federation, attack it, and end it."""
    with tempfile.TemporaryDirectory(prefix="recast-link-") as folder:
        told = ["--clients", str(len(NAMES)), *options]
        site = Site(Path(folder), [*NAMES, NEWCOMER, FOE], told, 1_000_000)
        site.port = free_port()
        site.prepare()
        honest = Honest(site)
        try:
            return attack(name, honest, times)
        finally:
            honest.end()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.link_attacks",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--attacks", nargs="+", choices=list(FOES), default=list(FOES))
    parser.add_argument("--seconds", type=float, default=Times.stretch, help="of one stretch")
    parser.add_argument("--cycles", type=int, default=Times.cycles, help="stretches under attack")
    given = parser.parse_args(arguments)
    times = Times(given.seconds, given.cycles)
    print(HEAD, flush=True)
    rows = []
    for name in given.attacks:
        rows.append(measure(name, times))
        print(rows[-1], flush=True)
    return int(not all(row.passes for row in rows))


if __name__ == "__main__":
    sys.exit(main())
