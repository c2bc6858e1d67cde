"""Shift banks against what else a fleet could do: accuracy, bytes and labels on held-out shifts.

``python -m experiments.studies.shifts --backbone file:resnet34.safetensors --data npz:gtsrb.npz
--rows gtsrb.jsonl --keep work --budget 500`` deploys a classifier of half the training images,
makes source networks once, and for each family of shifts a bank of those that never saw it; the
clients have the other half under a shift of that family. Every row is appended to the file as it is
made, and a run goes on where another stopped. ``shift_table`` makes the tables.

The rounds are the product's messages, averages and falling rates without a transport; banks train
in the folded engine or, as other methods, one client after another, which is faster for ten; on a
GPU with products in bfloat16. BatchNorms take a client's own statistics where its own rule says so,
for every method. Rates come from validation images of the clients' training images.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from client.learners import pick_device
from experiments.studies.one_line import in_one_line, resumable
from experiments.studies.shift_book import Book, OutOfTime, Row
from experiments.studies.shift_cell import Banks, Cell, Trial
from experiments.studies.shift_contenders import (
    ALL,
    BY_NAME,
    FULL,
    Contender,
    Key,
    cells_in_order,
    in_order,
    regime_of,
)
from experiments.studies.shift_rounds import Terms
from experiments.studies.shift_site import Site, SitePlan
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.shifts.compositions import Composition
from recast_core.shifts.table import Shift, parse_shift
from recast_core.sources.source_networks import SourceNetwork

SHIFTS = ("lowlight:4", "gauss:4", "fog:4", "motion:4", "pixelate:4", "rotate:4")


class Study:
    """All rows of one site."""

    def __init__(self, site: Site, network: str, book: Book, trial: Trial) -> None:
        self.site, self.book, self.trial = site, book, trial
        self._where = {"network": network, "data": site.data.rpartition("/")[2].split(".")[0]}
        self._own: TemplateBank | None = None

    def source(self, done: int, of: int, made: SourceNetwork, kept: bool) -> None:
        """See ``Watcher``."""
        self.book.check()

    def run(self, shifts: Sequence[Shift]) -> None:
        """Every shift's rows.

        Raises:
            OutOfTime: some are left.
        """
        sources = self.site.sources(self)
        for phase, place in cells_in_order(len(shifts)):
            shift = shifts[place]
            keys = [key for key in in_order(phase, self.trial.seeds) if self._wanted(key, shift)]
            if not keys:
                continue
            self.book.check()
            cell = Cell(self.site, shift, self._banks(sources, shift), self.trial)
            for key in keys:
                self.book.check()
                contender = BY_NAME[key.contender]
                row = cell.run(key, self._rates(cell, contender, key.labels))
                self._add(shift, {**vars(key), **row})
                print(f"{shift} {key.contender} {key.labels} {key.seed}: {row['accuracy']:.3f} "
                      f"{row['seconds']}s", flush=True)  # fmt: skip

    def _wanted(self, key: Key, shift: Shift) -> bool:
        if key.contender in self.trial.skip:
            return False
        if key.labels not in self.trial.budgets or 0 < key.labels < self.site.classes:
            return False
        there = {**self._where, "shift": str(shift), **vars(key)}
        return self.book.find(**there) is None

    def _banks(self, sources: Sequence[tuple[Composition, SourceNetwork]], shift: Shift) -> Banks:
        def own() -> TemplateBank:
            self._own = self._own or self.site.own_bank()
            return self._own

        def shifted() -> TemplateBank:
            began = time.monotonic()
            bank, used = self.site.bank(sources, shift.family, self.site.plan.rank or None)
            told = {"bank_bytes": len(bank.to_bytes()), "sources": used, "numbers": bank.sent}
            seconds = round(time.monotonic() - began, 2)
            if not self.book.find(**self._where, shift=str(shift), contender="bank"):
                self._add(shift, {"contender": "bank", **told, "seconds": seconds})
            print(f"{shift} bank: {told} {seconds}s", flush=True)
            return bank

        return {"own": own, "shifts": shifted}

    def _rates(self, cell: Cell, contender: Contender, labels: int) -> dict[str, float]:
        """Its tuned rates; tuned on the site's first shift, with its first row."""
        if contender.free:
            return {}
        regime = regime_of(labels)
        by = BY_NAME[contender.rates_of or contender.name]
        rates = {}
        if by.server:
            rates = self._rates(cell, BY_NAME[FULL], labels)
        there = {**self._where, "contender": "rate", "of": by.name, "regime": regime}
        row = self.book.find(**there)
        if row is None:
            found = cell.tuned(by, regime, rates)
            row = self._add(cell.shift, {"contender": "rate", "of": by.name, "regime": regime,
                                         **found})  # fmt: skip
            print(f"rate of {by.name}, {regime}: {found}", flush=True)
        return {**rates, "server" if by.server else "client": row["rate"]}

    def _add(self, shift: Shift, row: Row) -> Row:
        made = {**self._where, "kind": self.site.kind, "parameters": self.site.parameters,
                "clean": round(self.site.clean, 5), "shift": str(shift), "family": shift.family,
                "clients": self.trial.clients, "device": self.site.device.type,
                **row}  # fmt: skip
        self.book.add(made)
        return made


def quick(args: argparse.Namespace) -> tuple[SitePlan, Trial]:
    """A study of minutes at a size of seconds, on the small network of the package."""
    args.backbone, args.data, args.shifts = "glyph_resnet20", "digits", "lowlight:4"
    plan = SitePlan(epochs=8, rate=3e-3, sources=4, source_epochs=2, source_rate=1e-3,
                    sections=3, directions=3, rank=8, images=160)  # fmt: skip
    terms = Terms(rounds=1, epochs=1, batch=16)
    skip = ("LoRA r1", "LoRA r4", "norm affine, 1 bit", "FedAvg, server Adam", "own weights",
            "alone, coefficients", "alone, norm affine")  # fmt: skip
    return plan, Trial(3, 1.0, 1, terms, 1, skip, (-1, 64), not args.captured)


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = resumable(
        "shifts", __doc__, "; shift_table makes tables of its rows. Example: "
        "python -m experiments.studies.shifts --quick --rows rows.jsonl",
    )  # fmt: skip
    add = made.add_argument
    add("--backbone", default="file:resnet34_32px.safetensors", help="trained on anything")
    add("--name", default="", help="of the network, for people")
    add("--data", default="npz:gtsrb.npz", help="half the server's, half the clients'")
    add("--as-is", action="store_true", help="deploy the network with the classifier that it has")
    add("--images", type=int, default=SitePlan.images, help="training images, at most")
    add("--shifts", default=" ".join(SHIFTS), help="of the clients; no source has their families")
    add("--rows", type=Path, default=Path("shifts.jsonl"), help="JSON lines, appended to")
    add("--keep", type=Path, default=Path("shifts"), help="folder of networks")
    add("--budget", type=float, default=1e9, help="seconds")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--bfloat16", action="store_true", help="products, on a CPU too")
    add("--quick", action="store_true", help="a small network, as a test runs it")
    add("--sources", type=int, default=SitePlan.sources, help="of all families, before any is left")
    add("--source-epochs", type=int, default=SitePlan.source_epochs, help="passes of a source")
    add("--source-rate", type=float, default=SitePlan.source_rate, help="its highest rate")
    add("--sections", type=int, default=SitePlan.sections, help="of the bank")
    add("--directions", type=int, default=SitePlan.directions, help="of a section")
    add("--rank", type=int, default=SitePlan.rank, help="0: not packed")
    add("--rounds", type=int, default=Terms.rounds, help="of a fleet")
    add("--epochs", type=int, default=Terms.epochs, help="local passes of a round")
    add("--batch", type=int, default=Terms.batch, help="images a local step")
    add("--tuning-rounds", type=int, default=Trial.tuning_rounds, help="where rates are chosen")
    add("--further", type=int, default=0, help="rates beyond the end of a grid, at most")
    add("--seeds", type=int, default=Trial.seeds, help="from 0 on")
    add("--labels", default="all 0 64 256 1024", help="budgets that are tried")
    add("--skip", default="", help="contenders left out, with ; between them")
    add("--lanes", type=int, default=SitePlan.lanes, help="clients side by side on a GPU")
    add("--captured", action="store_true", help="banks: one client after another")
    return made


def asked(args: argparse.Namespace) -> tuple[SitePlan, Trial]:
    """How the server makes what it deploys, and what does not change over the rows.

    Raises:
        RecastError: a label budget is no number.
    """
    if args.quick:
        return quick(args)
    plan = SitePlan(sources=args.sources, source_rate=args.source_rate, rank=args.rank,
                    source_epochs=args.source_epochs, sections=args.sections,
                    directions=args.directions, images=args.images,
                    half=args.bfloat16 or None, lanes=args.lanes)  # fmt: skip
    if args.as_is:
        plan = replace(plan, epochs=0)
    terms = Terms(rounds=args.rounds, epochs=args.epochs, batch=args.batch)
    try:
        budgets = tuple(ALL if text == "all" else int(text) for text in args.labels.split())
    except ValueError as error:
        raise RecastError(f"--labels {args.labels}: give numbers, 0 for none, or all") from error
    trial = Trial(seeds=args.seeds, terms=terms, tuning_rounds=args.tuning_rounds,
                  skip=tuple(args.skip.split(";")), budgets=budgets,
                  folded=not args.captured, further=args.further)  # fmt: skip
    return plan, trial


def main(argv: Sequence[str] | None = None) -> None:
    """Run the study."""
    args = parser().parse_args(argv)
    until = time.monotonic() + args.budget
    try:
        plan, trial = asked(args)
        shifts = [parse_shift(text) for text in args.shifts.split()]
        book = Book(args.rows, until)
        site = Site(args.backbone, args.data, plan, pick_device(args.device), args.keep)
        network = args.name or args.backbone.rpartition("/")[2].split(".")[0]
        print(f"{network} on {args.data}, as deployed, clean: {site.clean:.3f}, and "
              f"{site.seen:.3f} on the clients' training images", flush=True)  # fmt: skip
        Study(site, network, book, trial).run(shifts)
    except OutOfTime:
        print(f"the budget is spent; run it again to go on: {args.rows}")
    except RecastError as error:
        sys.exit(f"shifts: {error}")


if __name__ == "__main__":
    in_one_line(main)
