"""Seconds until an accuracy: ours beside pfl's plain loop, each with the passes that suit it best.

A third of the training images is kept from the clients; the accuracy is that of each round's
coefficients with the network's own head on these, found when the clock has stopped. Test images
have no part in it. Each system is asked with every number of passes a round and every rate, so that
each is judged by its own best.

Example: python -m experiments.studies.peers_target --clients 100 --targets 60 64 --json target.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from experiments.studies.peers import SYSTEMS, present, run
from experiments.studies.peers_client import Case, write

Row = dict[str, Any]


def reached(row: Row, target: float) -> tuple[int, float] | None:
    """Rounds and seconds until a run has had an accuracy, a fraction; ``None`` where it never has.

    It counts as reached where the next round, if there is one, does not fall below it again.
    """
    curve: list[float] = row["curve"]
    for at, (found, seconds) in enumerate(zip(curve, accumulate(row["rounds"]), strict=False)):
        if min([found, *curve[at + 1 : at + 2]]) >= target:
            return at + 1, seconds
    return None


def table(rows: Sequence[Row], targets: Sequence[float]) -> str:
    """For every target and system its fastest passes and rate, and that time beside ours."""
    lines = [
        "| clients | until, % | system | passes a round | rate | rounds | seconds | times ours |",
        "|--:|--:|---|--:|--:|--:|--:|--:|",
    ]
    for clients in dict.fromkeys(row["clients"] for row in rows):
        for target in targets:
            ours: float | None = None
            for name in dict.fromkeys(row["system"] for row in rows):
                tried = [
                    (found[1], found[0], row)
                    for row in rows
                    if (row["clients"], row["system"]) == (clients, name)
                    if (found := reached(row, target)) is not None
                ]
                about = f"| {clients} | {100 * target:g} | {SYSTEMS[name][0]}"
                if not tried:
                    lines.append(f"{about} | never | | | | |")
                    continue
                seconds, rounds, row = min(tried, key=lambda one: one[0])
                if name == "folded":
                    ours = seconds
                beside = "" if ours is None else f"{seconds / ours:.2f}"
                lines.append(
                    f"{about} | {row['passes']} | {row['rate']:g} | {rounds} | {seconds:.2f} "
                    f"| {beside} |"
                )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.peers_target",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[100])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=["folded", "pfl-plain"])
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--images", type=int, default=24, help="passes in all, of every run")
    parser.add_argument("--targets", type=float, nargs="+", default=[60.0, 64.0], help="in %%")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one run")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    there, missing = present()
    for package in missing:
        print(f"{package} is not installed and left out: pip install 'recast-fl[peers]'")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for clients in given.clients:
            write(Case(clients, False, 1, Path(name), watched=True))
            for passes in given.passes:
                for rate in given.rates:
                    rounds = max(1, given.images // passes)
                    case = Case(clients, False, rounds, Path(name), passes, rate, watched=True)
                    for system in [one for one in given.systems if one in there]:
                        row = {"system": system, "clients": clients, "passes": passes}
                        row |= {"rate": rate, **run(system, case, given.limit)}
                        print(json.dumps(row), flush=True)
                        if "error" not in row:
                            rows.append(row)
    print(table(rows, [target / 100 for target in given.targets]))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
