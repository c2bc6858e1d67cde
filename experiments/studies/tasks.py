"""New classes: methods from 20 bytes to whole networks over a sequence of tasks, federated.

``python -m experiments.studies.tasks --rows rows.jsonl`` learns every task of the sequence with
every method, seed and order, through the product's own federation in one process. A method's rate
is chosen among the same multiples of the one that it declares (``--factors``), by validation images
that are part of the clients' training images. Every row is appended to the file as it is made, and
a study goes on where it was stopped; ``tasks_table`` makes tables and plots. With ``--clients 1``
it is centralised; ``--quick`` is small enough for a test.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.studies.one_line import in_one_line, resumable
from experiments.studies.shift_book import Book, OutOfTime
from experiments.studies.tasks_data import materialised
from experiments.studies.tasks_rows import (
    BY_NAME,
    FACTORS,
    ROWS,
    Row,
    Terms,
    alone,
    by_statistics,
    federated,
)
from recast_core.backbones import load_backbone
from recast_core.errors import RecastError
from recast_core.task_spec import parse_tasks

_VALIDATION_SEED = 1_009
QUICK = ("local head", "norm groups 1", "TinyLoRA 12 x 4")


class Images(NamedTuple):
    """How many images of a task there are at most.

    Attributes:
        learn: training images.
        judge: test images; all where ``None``.
    """

    learn: int
    judge: int | None


class Study:
    """All rows of a sequence of tasks."""

    def __init__(
        self,
        terms: Terms,
        tasks: Sequence[str],
        images: Images,
        book: Book,
        folder: Path,
        factors: Sequence[float] = FACTORS,
    ) -> None:
        """Write the tasks' images into ``folder``."""
        self.terms, self.book, self.folder, self.factors = terms, book, folder, tuple(factors)
        size = load_backbone(terms.backbone).preprocess.size
        self.learn, self.judge = (
            [
                materialised(task, size, images.learn, folder, validate=way, tests=images.judge)
                for task in tasks
            ]
            for way in (False, True)
        )
        self.where = {
            "backbone": Path(terms.backbone).stem,
            "clients": terms.clients,
            "images": images.learn,
            "tests": images.judge,
            "rounds": terms.rounds,
            "epochs": terms.epochs,
            "batch": terms.batch,
            "partition": terms.partition,
            "sequence": " ".join(tasks),
        }
        if self.factors != FACTORS:
            self.where["factors"] = list(self.factors)

    def run(self, rows: Sequence[Row], seeds: int, orders: int) -> None:
        """Every row that the book lacks, seed by seed.

        Raises:
            OutOfTime: some are left.
        """
        for order in range(orders):
            tasks = ordered(self.learn, order)
            for seed in range(seeds):
                for row in rows:
                    self._cell(row, tasks, order, seed)

    def _cell(self, row: Row, tasks: Sequence[str], order: int, seed: int) -> None:
        key = {"row": row.name, "order": order, "seed": seed, **self._bank_of(row), **self.where}
        if self.book.find(**key):
            return
        factor = self._factor(row)
        self.book.check()
        found = _run(row, self.terms, tasks, seed, factor)
        self.book.add({**key, "factor": factor, **found})
        told = " ".join(f"{n} {100 * t['accuracy']:.1f}" for n, t in found["tasks"].items())
        print(f"{row.name}, order {order}, seed {seed}: {told} ({found['seconds']} s)", flush=True)

    def _bank_of(self, row: Row) -> dict[str, str]:
        """Which file a row's bank is, so that another file's rows are others."""
        file = self.terms.banks.get(row.bank)
        return {"bank": Path(file).stem} if file else {}

    def _factor(self, row: Row) -> float:
        """The multiple that does best on validation images; tried once for each kind of row."""
        if row.free:
            return 1.0
        key = {"tuned": list(row.rate_of), **self._bank_of(row), **self.where}
        done = self.book.find(**key)
        if done is None:
            self.book.check()
            tried = {
                factor: _mean(_run(row, self.terms, self.judge, _VALIDATION_SEED, factor))
                for factor in self.factors
            }
            # Few images tie often: of equals the one nearest to what the method declares.
            best = max(self.factors, key=lambda factor: (tried[factor], -abs(math.log(factor))))
            done = {**key, "factor": best, "validation": {str(f): v for f, v in tried.items()}}
            self.book.add(done)
        return float(done["factor"])


def ordered(tasks: Sequence[str], order: int) -> list[str]:
    """The tasks as given for order 0; then rotated, so that each is first once; then drawn."""
    if order < len(tasks):
        return [*tasks[order:], *tasks[:order]]
    return [tasks[place] for place in np.random.default_rng(order).permutation(len(tasks))]


def chosen(names: Sequence[str] | None, banks: Sequence[str]) -> tuple[list[Row], dict[str, str]]:
    """The rows of these names, all where ``None``, and the files of their banks.

    A row that is of a bank is there once for each file that its bank's name is given.

    Raises:
        RecastError: no such row, a row without its bank, or a bank that is not NAME=FILE.
    """
    if names and (missing := set(names) - BY_NAME.keys()):
        raise RecastError(f"no row {'; '.join(missing)}: choose from {'; '.join(BY_NAME)}")
    if odd := [pair for pair in banks if "=" not in pair]:
        raise RecastError(f"{odd[0]!r} is no bank: write NAME=FILE, as in tasks=bank.safetensors")
    files = {}
    for name, file in (pair.split("=", 1) for pair in banks):
        files[f"{name}:{Path(file).stem}"] = file
    rows = []
    for row in ROWS:
        if names is not None and row.name not in names:
            continue
        keys = [key for key in files if key.split(":")[0] == row.bank]
        if row.bank in ("", "own"):
            rows.append(row)
        elif names is not None and not keys:
            raise RecastError(f"row {row.name!r} has no bank: give --banks {row.bank}=FILE")
        rows += [replace(row, bank=key) for key in keys]
    return rows, files


def _run(row: Row, terms: Terms, tasks: Sequence[str], seed: int, factor: float) -> Any:
    way = alone if row.alone else by_statistics if row.statistics else federated
    return way(row, terms, tasks, seed, factor)


def _mean(found: Any) -> float:
    return float(np.mean([task["accuracy"] for task in found["tasks"].values()]))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = resumable(
        "tasks", __doc__, "; tasks_table makes tables of its rows. Example: "
        "python -m experiments.studies.tasks --quick --rows rows.jsonl",
    )  # fmt: skip
    parser.add_argument("--backbone", default="glyph_resnet20", help="as recast simulate takes it")
    parser.add_argument("--target", default="conv", help="of own weights, TinyLoRA and the like")
    parser.add_argument("--tasks", default="digits@0-4 digits@5-9 digits@0-4+inverted",
                        help="in their first order")  # fmt: skip
    parser.add_argument("--banks", nargs="*", default=[],
                        help="of tasks_banks: tasks=FILE, norms=FILE")  # fmt: skip
    parser.add_argument("--factors", nargs="+", type=float, default=FACTORS,
                        help="of a method's rate, chosen on validation images")  # fmt: skip
    parser.add_argument("--clients", type=int, default=10, help="of every task")
    parser.add_argument("--images", type=int, default=500, help="training images of a task")
    parser.add_argument("--tests", type=int, help="test images of a task; all where not given")
    parser.add_argument("--rounds", type=int, default=4, help="of a task")
    parser.add_argument("--epochs", type=int, default=3, help="local passes of a round")
    parser.add_argument("--batch", type=int, default=16, help="images a local step")
    parser.add_argument("--partition", default="dirichlet:0.5", help="iid, dirichlet:ALPHA, ...")
    parser.add_argument("--seeds", type=int, default=3, help="from 0 on")
    parser.add_argument("--orders", type=int, default=1, help="of the tasks, each first once")
    parser.add_argument(
        "--only", nargs="+", metavar="ROW", help="these rows, as the table has them"
    )
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds; the rest is left")
    parser.add_argument("--quick", action="store_true", help="a few rows, as a test runs it")
    options = parser.parse_args(arguments)
    rows, banks = chosen(options.only, options.banks)
    if options.quick:
        rows = [row for row in rows if row.name in QUICK]
        options.clients, options.images, options.rounds, options.epochs = 2, 60, 1, 1
        options.tests = options.tests or 60
        options.seeds = 1
    terms = Terms(
        options.backbone, options.target, options.clients, options.rounds, options.epochs,
        options.batch, options.partition, banks,
    )  # fmt: skip
    book = Book(options.rows, time.monotonic() + options.budget)
    with tempfile.TemporaryDirectory(prefix="recast-") as folder:
        study = Study(
            terms,
            [str(task) for task in parse_tasks(options.tasks)],
            Images(options.images, options.tests),
            book,
            Path(folder),
            options.factors,
        )
        try:
            study.run(rows, options.seeds, options.orders)
        except OutOfTime:
            print(f"out of time: the same command goes on with {options.rows}")


if __name__ == "__main__":
    in_one_line(main)
