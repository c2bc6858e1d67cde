"""The speed of simulators side by side: ours, pfl-research, BlazeFL, and Flower on Ray.

All simulate the same clients with the same images, backbone, coefficients, rate and passes on two
cores. In one run every system has its turn again and again, so that a ratio compares neighbours in
time: other work on the machine then falls on all. A round of ours ends when it is recorded.
`pip install 'recast-fl[peers]'` in an environment of its own installs the others; those that are
missing are named and left out.

Example: python -m experiments.studies.peers --json peers.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from experiments.command.program import environment
from experiments.studies.peers_client import Case, write

# Name in the table, module that it needs, system and kind for ``peers_run``.
SYSTEMS = {
    "folded": ("recast, folded", "", "folded", "own"),
    "ray": ("Flower on Ray, same client code", "ray", "ray", "own"),
    "pfl-own": ("pfl, two workers, same client code", "pfl", "pfl", "own"),
    "pfl-plain": ("pfl, two workers, plain PyTorch loop", "pfl", "pfl", "plain"),
    "blazefl-own": ("BlazeFL, two threads, same client code", "blazefl", "blazefl", "own"),
    "blazefl-plain": ("BlazeFL, two threads, plain PyTorch loop", "blazefl", "blazefl", "plain"),
}
_ROUNDS, _QUICK_ROUNDS = 3, 2
Row = dict[str, Any]


def present() -> tuple[list[str], list[str]]:
    """The systems that can run here, and the packages that are missing."""
    found = [name for name, (_, needs, *_) in SYSTEMS.items() if not needs or _there(needs)]
    missing = {SYSTEMS[name][1] for name in SYSTEMS.keys() - {*found}}
    return found, sorted(missing)


def _there(module: str) -> bool:
    return find_spec(module) is not None


def run(name: str, case: Case, limit: float) -> Row:
    """Seconds of each round of one system, or why there are none."""
    _, _, system, kind = SYSTEMS[name]
    module = "experiments.studies.peers_run"
    start = [sys.executable, "-P", "-m"]
    if system == "pfl":
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [
        *start, module, system, kind, "--clients", str(case.clients),
        "--rounds", str(case.rounds), "--folder", str(case.folder),
        "--passes", str(case.passes), "--rate", str(case.rate),
        *(["--light"] if case.light else []), *(["--watched"] if case.watched else []),
    ]  # fmt: skip
    quiet = {"RAY_DEDUP_LOGS": "0", "PYTHONWARNINGS": "ignore"}
    around = {**os.environ, **environment(), **quiet}
    # Workers are processes and threads already; ours takes as many cores as there are.
    around["OMP_NUM_THREADS"] = "2" if system == "folded" else "1"
    try:
        # A session of its own, as torchrun's workers have: Linux shares processors by sessions.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False, env=around,
            start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"over {limit:g} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"rounds"')]
    if not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}
    told: list[Row] = [json.loads(line) for line in lines]
    right = [row["accuracy"] for row in told if row["accuracy"] is not None]
    # Processor time is that of all workers; Ray's are not ours to ask.
    spent = zip(*(r["cpu"] for r in told), strict=True)
    cpu = None if system == "ray" else [sum(each) for each in spent]
    curve = max((row["curve"] for row in told), key=len)
    found = {"rounds": told[0]["rounds"], "cpu": cpu, "curve": curve}
    return found | {"accuracy": right[0] if right else None}


def compare(case: Case, names: Sequence[str], repeats: int, limit: float) -> list[Row]:
    """A row for each system and repetition, in turns; who failed once is not asked again."""
    write(case)
    rows: list[Row] = []
    failed: set[str] = set()
    for repeat in range(repeats):
        for name in names:
            if name in failed:
                continue
            row = {"system": name, "clients": case.clients, "light": case.light, "repeat": repeat}
            row |= run(name, case, limit)
            rows.append(row)
            print(json.dumps(row), flush=True)
            if "error" in row:
                failed.add(name)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Seconds, and ratios of neighbours to ours: their median over the repetitions."""
    lines = [
        "| clients | system | s, warm round | times ours | first round | times ours "
        "| processor s, warm | times ours | accuracy |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for clients, light in dict.fromkeys((row["clients"], row["light"]) for row in rows):
        mine = [row for row in rows if (row["clients"], row["light"]) == (clients, light)]
        base = {row["repeat"]: row for row in mine if row["system"] == "folded"}
        for name in dict.fromkeys(row["system"] for row in mine):
            own = [row for row in mine if row["system"] == name]
            label = f"{clients:,}{' light' if light else ''}"
            if bad := [row["error"] for row in own if "error" in row]:
                lines.append(f"| {label} | {SYSTEMS[name][0]} | {bad[0][:60]} | | | | | | |")
                continue
            parts: list[str] = []
            for what, at in (("rounds", -1), ("rounds", 0), ("cpu", -1)):
                parts += _beside(own, base, what, at)
            right = own[0]["accuracy"]
            parts.append("" if right is None else f"{100 * right:.1f}")
            lines.append(f"| {label} | {SYSTEMS[name][0]} | {' | '.join(parts)} |")
    return "\n".join(lines)


def _beside(own: Sequence[Row], base: dict[int, Row], what: str, at: int) -> tuple[str, str]:
    """Seconds, and their ratio to ours of the same repetition: medians."""
    pairs = [(row, base.get(row["repeat"], {})) for row in own if row[what]]
    ratios = [row[what][at] / ours[what][at] for row, ours in pairs if ours.get(what)]
    seconds = f"{median(row[what][at] for row, _ in pairs):.2f}" if pairs else ""
    return seconds, f"{median(ratios):.2f}" if ratios else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.peers", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--clients", type=int, nargs="*", default=[100, 500], help="real training")
    parser.add_argument("--light", type=int, nargs="*", default=[1000], help="light clients")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one run")
    parser.add_argument("--quick", action="store_true", help="8 clients, 20 light ones, once")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    names, missing = present()
    for package in missing:
        print(f"{package} is not installed and left out: pip install 'recast-fl[peers]'")
    names = [name for name in names if not given.systems or name in given.systems]
    sizes = [(8, False), (20, True)] if given.quick else [
        *((count, False) for count in given.clients), *((count, True) for count in given.light)
    ]  # fmt: skip
    rounds, repeats = (_QUICK_ROUNDS, 1) if given.quick else (_ROUNDS, given.repeats)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for clients, light in sizes:
            case = Case(clients, light, rounds, Path(folder))
            rows += compare(case, names, repeats, given.limit)
    print(table(rows))
    if given.json is not None:
        given.json.write_text(json.dumps({"missing": missing, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
