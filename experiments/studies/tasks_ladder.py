"""The best of the study of tasks at each budget of bytes, and what narrower numbers cost."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from experiments.studies.tasks_entries import Entry, best_free
from experiments.studies.tasks_rows import BY_NAME
from recast_core.text import how_many

BUDGETS = (20, 30, 50, 100, 200, 500, 1000, 2000, 5000, 20_000)
RIVALS = ("LoRA r1", "norm affine")
_BITS = re.compile(r", \d bits?(?= \(|$)")
# So many widths make a line.
_WIDTHS = 3


def ladder(entries: Sequence[Entry]) -> list[str]:
    """Markdown: the best whose update has at most so many bytes, and its rivals at any width."""
    free = best_free(entries)
    lines = [
        f"| at most | best | update | mean | gain | {' | '.join(RIVALS)} |",
        "|--:|---|" + "--:|" * (3 + len(RIVALS)),
    ]
    for budget in BUDGETS:
        fitting = [entry for entry in entries if entry.update_bytes <= budget]
        best = max(fitting, key=lambda entry: (entry.mean, -entry.update_bytes))
        others = []
        for rival in RIVALS:
            own = [e.mean for e in fitting if e.update_bytes and _method(e) == rival]
            others.append(f"{100 * max(own):.1f}" if own else "-")
        lines.append(
            f"| {budget:,} B | {best.name} | {best.update_bytes:,} B | {100 * best.mean:.1f} "
            f"| {100 * (best.mean - free.mean):+.1f} | {' | '.join(others)} |"
        )
    return lines


def widths(entries: Sequence[Entry]) -> list[str]:
    """Markdown: mean and bytes of an update by bits a number, of what has three widths at least."""
    by: defaultdict[str, dict[int, Entry]] = defaultdict(dict)
    for entry in entries:
        if entry.update_bytes:
            by[_method(entry)][BY_NAME[entry.row].bits] = entry
    wide = [(name, own) for name, own in by.items() if len(own) >= _WIDTHS]
    every = sorted({bits for _, own in wide for bits in own}, reverse=True)
    heads = " | ".join(how_many(bits, "bit") for bits in every)
    lines = [f"| method | numbers | {heads} |", "|---|--:|" + "--:|" * len(every)]
    for name, own in sorted(wide, key=lambda pair: _numbers(pair[1])):
        cells = (
            f"{100 * own[bits].mean:.1f} ({own[bits].update_bytes:,} B)" if bits in own else "-"
            for bits in every
        )
        lines.append(f"| {name} | {_numbers(own):,} | {' | '.join(cells)} |")
    return lines if wide else []


def _method(entry: Entry) -> str:
    return _BITS.sub("", entry.name)


def _numbers(own: dict[int, Entry]) -> int:
    return max(entry.numbers for entry in own.values())
