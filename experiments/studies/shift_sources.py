"""What makes a shift bank good: how many sources, how boldly tuned, how divided, how packed.

``python -m experiments.studies.shift_sources --backbone file:resnet34.safetensors --data
npz:cifar100.npz --sources 64 --source-epochs 6 --source-rate 3e-4 --rows rows.jsonl`` deploys a
classifier as the study of shifts does, makes its sources once, and tries banks of all of them and
of half, federated and on all images at one place. Everything is judged on a fifth of the clients'
training images: this study chooses, and test images never do. It goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from client.learners import pick_device
from experiments.studies.one_line import in_one_line
from experiments.studies.shift_book import Book, OutOfTime
from experiments.studies.shift_fleet import Domain, deal
from experiments.studies.shift_judge import accuracy, with_statistics
from experiments.studies.shift_lanes import Lanes
from experiments.studies.shift_rounds import Terms, federate
from experiments.studies.shift_site import Site, SitePlan
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.shifts.compositions import Composition
from recast_core.shifts.table import Shift, parse_shift
from recast_core.sources.source_networks import SourceNetwork

_SEED, _BATCH, _RATE = 1_009, 64, 0.3
_FULL_RATES = (2e-4, 6e-4)
_QUICK = SitePlan(epochs=8, rate=3e-3, sources=4, source_epochs=2, source_rate=1e-3,
                  images=160)  # fmt: skip


@dataclass(frozen=True)
class Make:
    """How a bank is made of the sources.

    Attributes:
        part: of the sources, the first.
        sections: see ``SitePlan``.
        directions: likewise.
        rank: of the packed directions; 0 leaves them as they are.
    """

    part: float
    sections: int
    directions: int
    rank: int = 0


MAKES = (Make(1, 4, 12), Make(0.5, 4, 12), Make(1, 2, 24), Make(1, 8, 6), Make(1, 1, 48),
         Make(1, 4, 12, 32), Make(1, 2, 24, 16))  # fmt: skip


class Trials:
    """Every way to make a bank, under every shift.

    Args:
        site: what is deployed.
        sources: of all families.
        book: of the rows.
        terms: of every federation.
        clients: how many.
    """

    def __init__(
        self,
        site: Site,
        sources: Sequence[tuple[Composition, SourceNetwork]],
        book: Book,
        terms: Terms,
        clients: int,
    ) -> None:
        self.site, self.sources, self.book = site, sources, book
        self.terms, self.clients = terms, clients

    def run(self, shift: Shift, makes: Sequence[Make]) -> None:
        """A shift's rows: the yardsticks, and a row for each way to make a bank.

        Raises:
            OutOfTime: some are left.
        """
        domain, plan = self.site.domain(shift), self.site.plan
        where = {"shift": str(shift), "sources": len(self.sources),
                 "source_epochs": plan.source_epochs, "source_rate": plan.source_rate}  # fmt: skip
        if not self.book.find(**where, what="everything"):
            self.book.check()
            full = self.site.captured("full", _BATCH)
            found = self._judged(full, domain, (0.0, *_FULL_RATES), bits=32)
            self.book.add({**where, "what": "everything", **found})
        for make in makes:
            asked = {**where, "what": "bank", **asdict(make)}
            if self.book.find(**asked):
                continue
            self.book.check()
            bank, used = self._bank(make, shift.family)
            learner = self.site.captured_bank(bank, _BATCH)
            found = self._judged(learner, domain, (_RATE,), bits=8)
            size = len(bank.to_bytes()) if make.rank else 0
            self.book.add({**asked, "used": used, "bytes": size, **found})

    def _bank(self, make: Make, family: str) -> tuple[TemplateBank, int]:
        self.site.plan = replace(self.site.plan, sections=make.sections, directions=make.directions)
        count = max(1, round(make.part * len(self.sources)))
        return self.site.bank(self.sources[:count], family, make.rank or None)

    def _judged(
        self, learner: Lanes, domain: Domain, rates: Sequence[float], *, bits: int
    ) -> dict[str, float]:
        """Accuracies on validation images, of the start where a rate is zero."""
        learner.hold(domain)
        found = {}
        for name, clients in (("federated", self.clients), ("central", 1)):
            dealt = deal(domain, clients, 0.3, _SEED, -1, validate=True)
            shares = with_statistics(learner, dealt)
            for rate in rates:
                vectors: Sequence[Tensor] = [learner.start.initial_vector] * clients
                if rate:
                    terms = replace(self.terms, rate=rate, bits=bits)
                    vectors = federate(learner, shares, terms, _SEED).vectors
                found[f"{name} {rate:g}"] = round(accuracy(learner, shares, vectors), 5)
        print(found, flush=True)
        return found


class _Watcher:
    def __init__(self, book: Book) -> None:
        self._book = book

    def source(self, done: int, of: int, made: SourceNetwork, kept: bool) -> None:
        self._book.check()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbone", default="file:resnet34_32px.safetensors")
    parser.add_argument("--data", default="npz:gtsrb.npz")
    parser.add_argument("--shifts", default="lowlight:4 motion:4")
    parser.add_argument("--rows", type=Path, default=Path("sources.jsonl"))
    parser.add_argument("--keep", type=Path, default=Path("sources"), help="folder of networks")
    parser.add_argument("--sources", type=int, default=SitePlan.sources)
    parser.add_argument("--source-epochs", type=int, default=SitePlan.source_epochs)
    parser.add_argument("--source-rate", type=float, default=SitePlan.source_rate)
    parser.add_argument("--budget", type=float, default=1e9, help="seconds")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    plan = SitePlan(sources=args.sources, source_rate=args.source_rate,
                    source_epochs=args.source_epochs)  # fmt: skip
    makes: Sequence[Make] = MAKES
    terms, clients = Terms(), 10
    if args.quick:
        args.backbone, args.data, args.shifts = "glyph_resnet20", "digits", "lowlight:4"
        plan, terms, clients = _QUICK, Terms(rounds=1, epochs=1, batch=16), 3
        makes = (Make(1, 3, 3), Make(0.5, 3, 1, 8))
    try:
        shifts = [parse_shift(text) for text in args.shifts.split()]
        book = Book(args.rows, time.monotonic() + args.budget)
        site = Site(args.backbone, args.data, plan, pick_device(args.device), args.keep)
        trials = Trials(site, site.sources(_Watcher(book)), book, terms, clients)
        for shift in shifts:
            trials.run(shift, makes)
    except OutOfTime:
        print(f"the budget is spent; run it again to go on: {args.rows}")
    except RecastError as error:
        sys.exit(f"shift_sources: {error}")


if __name__ == "__main__":
    in_one_line(main)
