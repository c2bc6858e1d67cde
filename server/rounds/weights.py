"""How much a client's own count of examples may weigh: a claim, which nobody can check."""

from __future__ import annotations

from collections.abc import Sequence

from recast_core.heads import Statistics, head_kind


def limited(counts: Sequence[int], most: float) -> list[int]:
    """The counts, none of them above ``most`` times their median; in the order given.

    Of two in the middle the smaller is the median, so that one of two clients cannot raise the
    limit by claiming more.

    Args:
        counts: of examples, at least 0; those of 0 do not take part in the median.
        most: at least 1, or 0 for no limit.
    """
    positive = sorted(count for count in counts if count > 0)
    if not most or not positive:
        return list(counts)
    limit = max(1, int(most * positive[(len(positive) - 1) // 2]))
    return [min(count, limit) for count in counts]


def limited_statistics(
    kind: str, statistics: Sequence[Statistics], most: float
) -> list[Statistics]:
    """What clients tell of their features, each as if of no more examples than ``limited`` allows.

    Args:
        kind: of head.
        statistics: of each client, with ``counts`` by class.
        most: as ``limited``.
    """
    totals = [int(one["counts"].long().sum()) for one in statistics]
    found: list[Statistics] = []
    for one, total, limit in zip(statistics, totals, limited(totals, most), strict=True):
        if limit == total:
            found.append(one)
            continue
        layout = head_kind(kind).layout(head_kind(kind).width(one), len(one["classes"]))
        grow = {"counts", *(numbers.name for numbers in layout if numbers.squares)}
        share = limit / total
        found.append({n: v.double() * share if n in grow else v for n, v in one.items()})
    return found
