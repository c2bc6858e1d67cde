"""Kill servers and clients at random moments: ``python -m experiments.studies.chaos --kills 70``.

Real processes on the lean link with certificates, each killed with SIGKILL and started again; they
are forked from this process, which has imported everything, so that a life begins in milliseconds.
A run without kills comes first. After every kill the registry is read: no finished round may be
lost or changed, none twice, none skipped; in the end every round must be there, and equal to the
bit to the run without kills for as long as the same clients took part (with noise: as near as that
explains, ``apart``). What a private run spent may
only grow, and is accounted anew from its rows. Whatever stands after ``--`` is for `recast serve`:
``--aggregation median``, ``--secure-aggregation``, ``--dp-epsilon 8``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from experiments.command import certs
from experiments.measure.relay import free_port
from experiments.studies.lives import killed, started
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.privacy.accountant import Accountant, Mechanism
from recast_core.secure.shamir import threshold

ROUNDS = "SELECT task, round, clients, hex(coefficients) FROM rounds ORDER BY task, round"
SPENT = "SELECT epsilon FROM privacy ORDER BY id"
TRAIN, TEST = 60, 30


@dataclass
class Site:
    """A folder with the data and certificates of some clients.

    Attributes:
        root: the folder.
        names: of the clients.
        options: of the server.
        rounds: of the one task.
        patience: seconds to wait for a process that should have ended.
        pace: times the usual while between two kills, where the machine has others to serve.
        small: learn with an untrained network of a few thousand numbers, which hardly takes time.
    """

    root: Path
    names: Sequence[str]
    options: Sequence[str]
    rounds: int
    port: int = 0
    patience: float = 300.0
    pace: float = 1.0
    small: bool = False
    # Whom it befalls, each as often as it is named here.
    kinds: ClassVar[Sequence[str]] = ("server", "client", "client")

    def prepare(self) -> None:
        """Write images and certificates."""
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))
        images = np.rint(digits.images[order] * (255 / 16)).astype(np.uint8)
        labels = digits.target[order].astype(np.int64)
        for place, name in enumerate(self.names):
            mine = np.arange(place * (TRAIN + TEST), (place + 1) * (TRAIN + TEST)) % len(labels)
            folder = self.root / name
            folder.mkdir(parents=True)
            x, y = images[mine], labels[mine]
            np.savez(
                folder / "digits.npz",
                x_train=x[:TRAIN],
                y_train=y[:TRAIN],
                x_test=x[TRAIN:],
                y_test=y[TRAIN:],
                classes=np.array([str(label) for label in range(10)]),
            )
        certs.init(self.root / "certs", ["localhost"], self.names, force=False)
        if self.small:
            path = self.root / "small.safetensors"
            torch.manual_seed(0)
            save_file(CifarResNet(8, 4).state_dict(), path, {"size": "8"})
            self.options = [
                *("--backbone", f"file:{path}", "--target", "layer?.0.conv*"),
                *self.options,
            ]

    def serve_command(self, run: str) -> list[str]:
        """A server of the run in this folder."""
        return [
            *("serve", *self.listening(), "--certs", str(self.root / "certs")),
            *("--clients", str(len(self.names)), "--tasks", "digits", "--epochs", "1"),
            *("--rounds", str(self.rounds), "--device", "cpu", "--run-dir", str(self.root / run)),
            *self.options,
        ]

    def join_command(self, name: str, run: str) -> list[str]:
        """A client that takes part in it."""
        return [
            *("join", *self.joining(), "--name", name, "--device", "cpu"),
            *("--certs", str(self.root / "certs"), "--data", str(self.root / name)),
            *("--cache", str(self.root / f"{run}-{name}")),
        ]

    def serve(self, run: str) -> multiprocessing.process.BaseProcess:
        """A server of the run in this folder."""
        return started(self.serve_command(run), self.root / f"{run}-server.log")

    def join(self, name: str, run: str) -> multiprocessing.process.BaseProcess:
        """A client that takes part in it."""
        return started(self.join_command(name, run), self.root / f"{run}-{name}.log")

    def listening(self) -> Sequence[str]:
        """Where a server is to be."""
        return "--listen", f"127.0.0.1:{self.port}"

    def joining(self) -> Sequence[str]:
        """Where a client finds it."""
        return (f"localhost:{self.port}",)

    def befall(self, what: str) -> None:
        """Kill and start again what is neither server nor client."""
        raise NotImplementedError(what)

    def read(self, run: str, query: str) -> list[tuple[object, ...]]:
        """Rows of the run's registry; none where it is not there yet.

        Raises:
            OperationalError: it cannot be read for as long as there is patience.
        """
        path, ends = self.root / run / "registry.sqlite", time.monotonic() + self.patience
        while path.exists():
            try:
                with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
                    return list(database.execute(query))
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    break
                # Whoever opens it after a kill keeps others out until it is whole again.
                if time.monotonic() > ends:
                    raise
                time.sleep(0.05)
        return []

    def finished(self, run: str) -> bool:
        """Whether the run has come to its end."""
        return self.read(run, "SELECT status FROM runs ORDER BY id DESC LIMIT 1") == [("finished",)]


@dataclass
class Watch:
    """What must hold after every kill."""

    site: Site
    run: str
    seen: dict[tuple[object, object], object] = field(default_factory=dict)
    spent: list[object] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def look(self, where: str) -> int:
        """Compare with what was seen before; how many rounds are finished."""
        rows = self.site.read(self.run, ROUNDS)
        now = {(task, round_): vector for task, round_, _, vector in rows}
        if len(now) < len(rows):
            self.faults.append(f"{where}: a round twice")
        if sorted(int(str(round_)) for _, round_ in now) != list(range(1, len(now) + 1)):
            self.faults.append(f"{where}: a round skipped")
        lost = [key for key, vector in self.seen.items() if now.get(key) != vector]
        if lost:
            self.faults.append(f"{where}: round {lost[0]} lost or changed")
        spent = [row[0] for row in self.site.read(self.run, SPENT)]
        if spent[: len(self.spent)] != self.spent:
            self.faults.append(f"{where}: what was spent is less than before")
        if any(float(str(b)) < float(str(a)) for a, b in pairwise(spent)):
            self.faults.append(f"{where}: what was spent fell")
        if spent and len(spent) < len(now):
            self.faults.append(f"{where}: a round that cost nothing")
        checked = self.site.read(self.run, "PRAGMA integrity_check") if rows else [("ok",)]
        if checked != [("ok",)]:
            self.faults.append(f"{where}: {checked[0][0]}")
        self.seen, self.spent = self.seen | now, spent
        return len(now)


def whole(site: Site) -> float:
    """The run without kills; its seconds."""
    began = time.monotonic()
    lives = [site.serve("whole"), *(site.join(name, "whole") for name in site.names)]
    lives[0].join(site.patience)
    for one in lives:
        killed(one)
    return time.monotonic() - began


def chaos(site: Site, kills: int, seconds: float, dice: random.Random) -> dict[str, object]:
    """The run with kills, to its end; what was seen."""
    watch, run, began = Watch(site, "chaos"), "chaos", time.monotonic()
    server = site.serve(run)
    clients = {name: site.join(name, run) for name in site.names}
    count = dict.fromkeys(site.kinds, 0)
    # What befalls whom follows from the seed, however often it was looked before.
    fate = random.Random(dice.getrandbits(32))
    while sum(count.values()) < kills and time.monotonic() - began < seconds:
        if site.finished(run):
            break
        time.sleep(site.pace * fate.choice([0.1, 0.3, 1.0, 2.0, 4.0]) * fate.random())
        what, works, name = fate.choice(site.kinds), fate.random() < 0.6, fate.choice(site.names)
        if what == "server":
            if works:  # most have begun to work
                before, ends = watch.look("before a kill"), time.monotonic() + 60
                while watch.look("before a kill") == before and time.monotonic() < ends:
                    time.sleep(0.05 + 0.2 * dice.random())
            killed(server)
            watch.look("after the server's end")
            server = site.serve(run)
        elif what != "client":
            site.befall(what)
        else:
            killed(clients[name])
            watch.look("after a client's end")
            clients[name] = site.join(name, run)
        count[what] += 1
        if not server.is_alive():
            server = site.serve(run)
        for name, one in clients.items():
            if not one.is_alive():
                clients[name] = site.join(name, run)
    done = watch.look("after the last kill")
    ends = time.monotonic() + site.patience
    while not site.finished(run) and time.monotonic() < ends:
        if not server.is_alive():
            server = site.serve(run)
        time.sleep(0.2)
    watch.look("in the end")
    for one in (server, *clients.values()):
        killed(one)
    return {
        "kills": count,
        "rounds_when_the_kills_ended": done,
        "seconds": round(time.monotonic() - began, 1),
        "finished": site.finished(run),
        "spent": watch.spent[-1:],
        "charges": len(watch.spent),
        "faults": watch.faults,
    }


def accounted(site: Site) -> float | None:
    """What all noise that was ever told of costs together, counted anew; ``None`` without any."""
    rows = site.read("chaos", "SELECT noise, rate, sampling, delta, kind FROM privacy")
    if not rows:
        return None
    told = [Mechanism(float(str(n)), float(str(r)), str(s)) for n, r, s, *_ in rows]  # type: ignore[arg-type]
    *_, delta, kind = rows[0]
    return Accountant(float(str(delta)), discrete=kind == "distributed").epsilon(told)


def compared(site: Site) -> dict[str, object]:
    """The run with kills beside the one without, for as long as the same clients took part."""
    one, other = site.read("whole", ROUNDS), site.read("chaos", ROUNDS)
    fewer = [int(str(row[1])) for row in other if row[2] != len(site.names)]
    until = min(fewer, default=len(other) + 1)
    alike = [
        before[3] == after[3]
        for before, after in zip(one, other, strict=False)
        if int(str(after[1])) < until
    ]
    found: dict[str, object] = {
        "rounds": len(other),
        "rounds_with_fewer_clients": len(fewer),
        "compared": len(alike),
        "equal": sum(alike),
    }
    if site.read("chaos", SPENT) and alike:
        place = len(alike) - 1
        found["apart"] = apart(site, str(one[place][3]), str(other[place][3]), len(alike))
    return found


def apart(site: Site, one: str, other: str, rounds: int) -> float:
    """The distance of two runs' vectors after so many rounds, in that which their noise explains.

    About 1 where noise is little beside what is learned; of much noise each run learns its own way.
    """
    clients, variance = len(site.names), 0.0
    for run in ("whole", "chaos"):
        query = "SELECT round, noise, clip, kind FROM privacy ORDER BY id"
        last = {row[0]: row[1:] for row in site.read(run, query)}
        for noise, clip, kind in [last[round_] for round_ in range(1, rounds + 1)]:
            richer = clients / (2 * threshold(clients) - clients) if kind == "distributed" else 1.0
            variance += richer * (float(str(noise)) * float(str(clip)) / clients) ** 2
    here, there = (np.frombuffer(bytes.fromhex(text), "<f4") for text in (one, other))
    return float(np.sqrt(np.square(here - there).mean() / variance))


def main(make: Callable[..., Site] = Site, description: str | None = __doc__) -> int:
    """Print one line of JSON; 1 where something was lost."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--kills", type=int, default=70)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--patience", type=float, default=Site.patience)
    parser.add_argument("--pace", type=float, default=Site.pace)
    parser.add_argument("--small", action="store_true", help="with a network that takes no time")
    parser.add_argument(
        "--alone", action="store_true", help="no run without kills, where noise is drawn anew"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="of `recast serve`, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recast-chaos-") as folder:
        names = [f"edge-{number}" for number in range(1, given.clients + 1)]
        site = make(Path(folder), names, given.options, given.rounds)
        site.patience, site.pace, site.small = given.patience, given.pace, given.small
        site.port = free_port()
        site.prepare()
        found: dict[str, object] = {"options": " ".join(given.options)}
        if not given.alone:
            found["whole"] = whole(site)
        found |= chaos(site, given.kills, given.seconds, random.Random(given.seed))
        found |= compared(site)
        if (cost := accounted(site)) is not None:
            (last,) = site.read("chaos", "SELECT epsilon FROM privacy ORDER BY id DESC LIMIT 1")
            found |= {"recorded_epsilon": last[0], "epsilon_counted_anew": cost}
    print(json.dumps(found), flush=True)
    undercounted = cost is not None and float(str(found["recorded_epsilon"])) < cost - 1e-9
    return int(bool(found["faults"]) or not found["finished"] or undercounted)


if __name__ == "__main__":
    sys.exit(main())
