"""Measure how a round's time and memory grow with the number of clients, engine beside engine.

Every engine trains the same clients on the same images: 32 synthetic pictures each, two passes,
the default backbone. Each run is a process of its own, so that its peak memory is its own. A round
begins with its questions and ends when it is averaged and recorded; greeting is before the first.
The last round is reported, and the first beside it.

Example: python -m experiments.studies.scale --clients 10 100 1000 --engines folded sequential ray
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.command.program import environment
from experiments.studies.one_line import in_one_line

CLASSES = 10
_PIXELS, _AT_ONCE = 16, 100_000
ENGINES = ("folded", "sequential", "ray")
LIGHT = f"module:experiments.studies.scale:light_backbone@size={_PIXELS}"


def light_backbone() -> nn.Module:
    """A perceptron on 4 x 4 means: local work of well under a millisecond a client."""
    torch.manual_seed(0)
    model = nn.Sequential(
        OrderedDict(
            pool=nn.AdaptiveAvgPool2d(4),
            flat=nn.Flatten(),
            stem=nn.Linear(48, 32),
            first=nn.ReLU(),
            layer1=nn.Linear(32, 32),
            second=nn.ReLU(),
            layer2=nn.Linear(32, 32),
            third=nn.ReLU(),
            fc=nn.Linear(32, CLASSES),
        )
    )
    nn.init.normal_(model.get_parameter("fc.weight"))
    return model


def write_images(path: Path, count: int, seed: int = 0) -> None:
    """Noisy patterns of ten classes: ``count`` to learn from and a sixteenth of that to judge."""
    random = np.random.default_rng(seed)
    patterns = random.integers(40, 216, (CLASSES, _PIXELS, _PIXELS), dtype=np.int16)
    arrays: dict[str, Any] = {"classes": np.array([str(i) for i in range(CLASSES)])}
    for part, size in (("train", count), ("test", max(CLASSES, count // 16))):
        labels = random.integers(0, CLASSES, size)
        images = np.empty((size, _PIXELS, _PIXELS), dtype=np.uint8)
        for first in range(0, size, _AT_ONCE):
            some = labels[first : first + _AT_ONCE]
            noise = random.integers(-40, 40, (len(some), _PIXELS, _PIXELS), dtype=np.int16)
            images[first : first + _AT_ONCE] = (patterns[some] + noise).clip(0, 255)
        arrays[f"x_{part}"], arrays[f"y_{part}"] = images, labels
    np.savez(path, **arrays)


def run_once(engine: str, given: argparse.Namespace) -> dict[str, Any]:
    """One federation in this process: seconds of its last round, and where they went."""
    from flwr.serverapp import Grid

    from client.app import app as client_app
    from experiments.engines.folded import FoldedGrid
    from experiments.engines.ray import run_on_ray
    from experiments.engines.sequential import SequentialGrid
    from recast_core.settings import Settings
    from server.app import run_federation
    from server.flower import server_identity

    clients = given.clients[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images.npz", clients * given.images)
        settings = Settings(
            backbone=LIGHT if given.light else Settings.backbone,
            target="layer[12]" if given.light else Settings.target,
            tasks=f"scale=npz:{folder / 'images.npz'}",
            rounds=given.rounds,
            epochs=given.epochs,
            partition="iid",
            device=given.device,
            ledger=given.ledger,
            run_dir=str(folder / "run"),
        )
        watch = _Watch()
        found: dict[str, Any] = {"engine": engine, "clients": clients}

        def federation(grid: Grid) -> None:
            watch.grid = grid
            run_federation(grid, settings, folder / "run", watch)

        began = time.monotonic()
        if engine == "ray":
            run_on_ray(federation, client_app, clients, settings, folder / "caches")
        else:
            with server_identity(), ExitStack() as stack:
                federation(
                    stack.enter_context(FoldedGrid(clients, settings))
                    if engine == "folded"
                    else SequentialGrid(clients, client_app, settings, folder / "caches")
                )
        found["total_seconds"] = time.monotonic() - began
    seconds = watch.seconds[-1]
    found |= {
        "round_seconds": seconds,
        "first_round_seconds": watch.seconds[0],
        "ms_per_client": 1e3 * seconds / clients,
        "clients_per_second": clients / seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if engine == "folded":
        training = watch.training[-1] - (watch.training[-2] if given.rounds > 1 else 0.0)
        found |= {
            "training_ms_per_client": 1e3 * training / clients,
            "rest_ms_per_client": 1e3 * (seconds - training) / clients,
        }
    return found


class _Watch:
    """An observer that keeps the seconds of every round, and how much of them was training."""

    def __init__(self) -> None:
        self.grid: Any = None
        self.seconds: list[float] = []
        self.training: list[float] = []

    def run_started(self, start: object) -> None:
        """See ``server.exchange.observer.Observer``."""

    def joined(self, clients: int, delivered: int) -> None:
        """See ``server.exchange.observer.Observer``."""

    def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
        """See ``server.exchange.observer.Observer``."""

    def learned(self, task: str, round_: int, loss: float, clients: int) -> None:
        """See ``server.exchange.observer.Observer``."""

    def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
        """Note how long it took."""
        self.seconds.append(seconds)
        spent = getattr(self.grid, "time", None)
        self.training.append(0.0 if spent is None else spent.training)

    def evaluated(self, task: str, accuracy: float, without: float | None, clients: int) -> None:
        """See ``server.exchange.observer.Observer``."""

    def refused(self, client: str, reason: str, detail: str) -> None:
        """A client that could not train would be time not spent."""
        print(f"client {client} refused ({reason}): {detail}", file=sys.stderr)

    def overdue(self, clients: object) -> None:
        """See ``server.exchange.observer.Observer``."""


def measure(
    engines: Sequence[str], clients: Sequence[int], limit: float, options: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for every run that ended within ``limit`` seconds."""
    rows = []
    for count in clients:
        for engine in engines:
            command = [
                sys.executable, "-P", "-m", "experiments.studies.scale", "--one", engine,
                "--clients", str(count), *options,
            ]  # fmt: skip
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=limit, check=False,
                    env={**os.environ, **environment()},
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                rows.append({"engine": engine, "clients": count, "error": f"over {limit:g} s"})
                continue
            lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
            failed = {"engine": engine, "clients": count, "error": done.stderr[-300:]}
            rows.append(json.loads(lines[-1]) if lines else failed)
            print(rows[-1], flush=True)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| clients | engine | first round, s | last round, s | ms per client | of it not training "
        "| MiB |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['clients']} | {row['engine']} | {row['error'][:40]} | | | | |")
            continue
        rest = row.get("rest_ms_per_client")
        lines.append(
            f"| {row['clients']} | {row['engine']} | {row['first_round_seconds']:.2f} | "
            f"{row['round_seconds']:.2f} | "
            f"{row['ms_per_client']:.2f} | {'' if rest is None else f'{rest:.2f}'} | "
            f"{row['peak_mib']:.0f} |"
        )
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Seconds per round over clients, a line for each engine; needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    for engine in ENGINES:
        points = [(r["clients"], r["round_seconds"]) for r in rows
                  if r["engine"] == engine and "error" not in r]  # fmt: skip
        if points:
            axes.loglog(*zip(*points, strict=True), marker="o", label=engine)
    axes.set_xlabel("clients")
    axes.set_ylabel("seconds per round")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Measure, print the table and write the files asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--images", type=int, default=32, help="of each client")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--light", action="store_true", help="a backbone that costs next to nothing"
    )
    parser.add_argument("--ledger", choices=("full", "summary"), default="full")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", choices=ENGINES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        with contextlib.redirect_stdout(sys.stderr):
            row = run_once(given.one, given)
        print(json.dumps(row), flush=True)
        os._exit(0)  # Ray and Flower leave threads that would keep the process waiting
    options = [
        "--images", str(given.images), "--rounds", str(given.rounds),
        "--epochs", str(given.epochs), "--device", given.device, "--ledger", given.ledger,
        *(["--light"] if given.light else []),
    ]  # fmt: skip
    rows = measure(given.engines, given.clients, given.limit, options)
    print(table(rows))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")
    if given.plot is not None:
        plot(rows, given.plot)


if __name__ == "__main__":
    in_one_line(main)
