"""What clients tell of their features for a head that travels, drawn near to what others tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from recast_core.heads import Statistics, head_kind
from server.rounds.rules.stacked import Numbers, lengths, lower_median

# Times the median distance from the coordinates' median that anything may stand away from it;
# single numbers scatter more than rows.
REACH, REACH_OF_ONE = 3.0, 5.0
# The same beyond which a client's sums of squares are no sums of features as the others have.
TOO_FAR = 5.0
# A client whose classes lie to each other as others' do by less than this part of what is usual is
# left out; it is compared with so many.
USUAL = 0.4
VOTERS = 64
# Fewer have no median that says anything.
FEWEST = 3
# Columns of sums of squares, of all clients, that are compared at once.
_AT_ONCE = 1 << 12


def trusted_statistics(kind: str, statistics: Sequence[Statistics]) -> dict[int, Statistics]:
    """The statistics of those who agree, nothing in them far from what the others tell.

    Both steps are those of the rule ``clipped``. A client whose classes do not lie to each other as
    the others' do is left out, fewer than half of all: there labels are exchanged, or signs. Of the
    rest, what stands far from the coordinates' median is drawn towards it: the rows of a class
    beside those of the same class, whatever else their clients have; sums of squares by example,
    and whose sums are ``TOO_FAR`` is left out too. What fewer than ``FEWEST`` tell of stays.

    Args:
        kind: of head.
        statistics: of each client, checked.

    Returns:
        By the place among those given.
    """
    exact = [dict(head_kind(kind).exact(one)) for one in statistics]
    keep = agreeing_clients([_directions(kind, one) for one in exact])
    found = {place: one for place, one in enumerate(exact) if keep[place]}
    if found:
        _rows_of_classes(kind, list(found.values()))
        far = _sums_of_squares(kind, list(found.values()))
        found = {p: one for (p, one), out in zip(found.items(), far, strict=True) if not out}
    return dict(found)


def agreeing_clients(directions: Sequence[Mapping[int, Numbers]]) -> list[bool]:
    """Which clients' classes lie to each other as the others' do.

    Args:
        directions: of each client, by class: from the middle of its classes to that class ``[k]``.
            Who has fewer than two classes in common with others is not judged.
    """
    keep = [True] * len(directions)
    scores = _median_cosines(directions)
    judged = np.flatnonzero(~np.isnan(scores))
    if len(judged) >= FEWEST:
        least = USUAL * max(0.0, float(np.median(scores[judged])))
        lowest = judged[np.argsort(scores[judged], kind="stable")][: (len(judged) - 1) // 2]
        for place in lowest:
            keep[place] = bool(scores[place] >= least)
    return keep


def _directions(kind: str, one: Statistics) -> dict[int, Numbers]:
    """By class, from the middle of a client's classes to it; those of many examples tell more."""
    names = [name for name in _names(kind, one, squares=False) if one[name].dim() == 2]
    rows = np.concatenate([_rows(one, name) for name in names], axis=1)
    weights = np.sqrt(one["counts"].double().numpy())[:, None]
    apart = weights * (rows - (weights * rows).sum(0) / weights.sum())
    return dict(zip(one["classes"].tolist(), apart, strict=True))


def _median_cosines(directions: Sequence[Mapping[int, Numbers]]) -> Numbers:
    """Of each client ``[N]``, the median cosine with others over the classes that both have.

    NaN where fewer than two others have two of its classes.
    """
    count = len(directions)
    voters = np.unique(np.linspace(0, max(0, count - 1), min(count, VOTERS)).astype(np.int64))
    shape = count, len(voters)
    product, mine, theirs, common = (np.zeros(shape) for _ in range(4))
    for number in sorted(set().union(*directions)):
        having = np.array([place for place in range(count) if number in directions[place]])
        asked = np.flatnonzero(np.isin(voters, having))
        rows = np.stack([directions[place][number] for place in having])
        others = rows[np.searchsorted(having, voters[asked])]
        where = np.ix_(having, asked)
        # No matrix product of a library, whose last bits depend on its threads.
        product[where] += np.einsum("ik,jk->ij", rows, others)
        mine[where] += np.square(rows).sum(1)[:, None]
        theirs[where] += np.square(others).sum(1)
        common[where] += 1
    sizes = np.sqrt(mine * theirs)
    told = (common >= 2) & (sizes > 0) & (voters != np.arange(count)[:, None])
    cosines = np.where(told, product / np.where(sizes > 0, sizes, 1.0), np.nan)
    enough = told.sum(1) >= FEWEST - 1
    found = np.full(count, np.nan)
    found[enough] = np.nanmedian(cosines[enough], axis=1)
    return found


def _rows_of_classes(kind: str, found: Sequence[dict[str, Tensor]]) -> None:
    """Draw the rows near that stand far from others of their class."""
    holders = defaultdict[int, list[tuple[int, int]]](list)
    for place, one in enumerate(found):
        for row, number in enumerate(one["classes"].tolist()):
            holders[number].append((place, row))
    for name in _names(kind, found[0], squares=False):
        all_rows = [_rows(one, name) for one in found]
        for held in holders.values():
            if len(held) < FEWEST:
                continue
            rows = np.stack([all_rows[place][row] for place, row in held])
            centre = np.median(rows, axis=0)
            reach = REACH if rows.shape[1] > 1 else REACH_OF_ONE
            factors = _factors(lengths(rows - centre), reach)
            for (place, row), factor, mine in zip(held, factors, rows, strict=True):
                if factor < 1:
                    all_rows[place][row] = centre + factor * (mine - centre)
        for one, rows in zip(found, all_rows, strict=True):
            one[name] = torch.from_numpy(rows).view_as(one[name]).to(one[name].dtype)


def _sums_of_squares(kind: str, found: Sequence[dict[str, Tensor]]) -> list[bool]:
    """Draw the sums near, by example, that stand far from the others'; who stands too far."""
    far = [False] * len(found)
    totals = np.array([max(1.0, float(one["counts"].double().sum())) for one in found])[:, None]
    for name in _names(kind, found[0], squares=True) if len(found) >= FEWEST else ():
        rows = [one[name].double().flatten().numpy() for one in found]
        apart, centre = np.zeros(len(found)), np.empty(len(rows[0]))
        for first in range(0, len(centre), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            some = np.stack([row[part] for row in rows]) / totals
            centre[part] = np.median(some, axis=0)
            apart += np.square(some - centre[part]).sum(1)
        factors = _factors(np.sqrt(apart), REACH)
        for one, row, factor, total in zip(found, rows, factors, totals[:, 0], strict=True):
            if factor < 1:
                mine = total * (centre + factor * (row / total - centre))
                one[name] = torch.from_numpy(mine).view_as(one[name]).to(one[name].dtype)
        far = [out or factor < REACH / TOO_FAR for out, factor in zip(far, factors, strict=True)]
    return far


def _rows(one: Statistics, name: str) -> Numbers:
    """What a client tells of each of its classes: float64 ``[P, k]``, a copy."""
    values = one[name].double()
    return np.array(values.reshape(len(values), -1).numpy(), copy=True)


def _factors(distances: Numbers, reach: float) -> Numbers:
    most = reach * lower_median(distances)
    found: Numbers = np.minimum(1.0, most / np.maximum(distances, 1e-300))
    return found


def _names(kind: str, one: Statistics, *, squares: bool) -> list[str]:
    """The numbers about features: those with a row for each class, or the sums of squares."""
    layout = head_kind(kind).layout(head_kind(kind).width(one), len(one["classes"]))
    return [numbers.name for numbers in layout if numbers.squares == squares]
