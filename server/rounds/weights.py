"""What a client's own claims may weigh: its count of examples, and how large its features are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from recast_core.heads import Statistics, head_kind

# Times the median client's largest number beyond which numbers about features are made smaller.
FAR = 5.0


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

    Nor are anybody's features larger than ``FAR`` times those of the median client: numbers beyond
    that are scaled to it together.

    Args:
        kind: of head.
        statistics: of each client, with ``counts`` by class.
        most: as ``limited``.
    """
    if not most:
        return list(statistics)
    totals = [int(one["counts"].long().sum()) for one in statistics]
    found: list[Statistics] = []
    sized = _of_usual_size(kind, statistics, totals)
    for one, total, limit in zip(sized, totals, limited(totals, most), strict=True):
        if limit == total:
            found.append(one)
            continue
        grow = {"counts", *(name for name, squares in _rows(kind, one).items() if squares)}
        share = limit / total
        found.append({n: v.double() * share if n in grow else v for n, v in one.items()})
    return found


def _of_usual_size(
    kind: str, statistics: Sequence[Statistics], totals: Sequence[int]
) -> list[Statistics]:
    """The statistics, their numbers no larger than ``FAR`` times those of the median client."""
    found = list(statistics)
    for name, squares in (_rows(kind, statistics[0]) if statistics else {}).items():
        sizes = [
            _largest(one[name]) / (max(total, 1) if squares else 1)
            for one, total in zip(statistics, totals, strict=True)
        ]
        positive = sorted(size for size in sizes if size > 0)
        if not positive:
            continue
        most = positive[(len(positive) - 1) // 2] * (FAR**2 if squares else FAR)
        for place, size in enumerate(sizes):
            if size > most:
                told = found[place]
                found[place] = {**told, name: told[name].double() * (most / size)}
    return found


def _rows(kind: str, one: Statistics) -> dict[str, bool]:
    """The names of the numbers about features, and whether they are sums of squares."""
    layout = head_kind(kind).layout(head_kind(kind).width(one), len(one["classes"]))
    return {numbers.name: numbers.squares for numbers in layout if not numbers.whole}


def _largest(values: Tensor) -> float:
    return float(values.double().abs().max()) if values.numel() else 0.0
