"""Shamir's secret sharing of vectors (CACM 1979): any ``t`` shares tell all, fewer tell nothing.

The secret is a polynomial's value at 0, member ``i``'s share its value at ``i + 1``. Shares of
several secrets add up to a share of their sum.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recast_core.secure.field import Field, Numbers


class InconsistentError(ValueError):
    """Shares that do not lie on one polynomial: at least one of them is wrong."""


def threshold(members: int) -> int:
    """How many shares tell the sum among so many members: more than two thirds.

    Twice as many are more than all members and a third of them again, so that a server which tells
    some members of one set of survivors and the others of another learns neither sum, even if a
    third of the members help it by answering twice.
    """
    return 2 * members // 3 + 1


def share(field: Field, secret: Numbers, members: int, needed: int) -> Numbers:
    """Shares ``[members, D]`` of a secret ``[D]``."""
    prime = np.uint64(field.prime)
    polynomial = field.random((needed - 1, len(secret)))
    shares = np.empty((members, len(secret)), np.uint64)
    for member in range(members):
        point, value = np.uint64(member + 1), np.zeros_like(secret)
        for coefficients in polynomial:
            value = (value + coefficients) * point % prime
        shares[member] = (value + secret) % prime
    return shares


def add(field: Field, terms: Numbers) -> Numbers:
    """The sum ``[D]`` of ``[n, D]``."""
    total = np.zeros(terms.shape[1], np.uint64)
    for term in terms:
        total = (total + term) % np.uint64(field.prime)
    return total


def combine(field: Field, shares: Mapping[int, Numbers], needed: int) -> Numbers:
    """The secret ``[D]`` that shares of members (by their place) stand for.

    Those beyond ``needed`` must agree with it. With three or more of them, one that does not is
    found and left out, and two that do not cannot pass for one.

    Raises:
        InconsistentError: they do not agree, and which is wrong cannot be told.
        ValueError: too few shares.
    """
    if len(shares) < needed:
        raise ValueError(f"{len(shares)} shares of {needed}")
    if _agree(field, shares, needed):
        return _at(field, _first(shares, needed), 0)
    for suspect in liars(field, shares, needed):
        others = {member: value for member, value in shares.items() if member != suspect}
        return _at(field, _first(others, needed), 0)
    raise InconsistentError(f"{len(shares)} shares do not belong to one sum")


def liars(field: Field, shares: Mapping[int, Numbers], needed: int) -> list[int]:
    """The members whose share ``combine`` leaves out."""
    if len(shares) < needed + 3 or _agree(field, shares, needed):
        return []
    return [
        suspect
        for suspect in shares
        if _agree(field, {m: v for m, v in shares.items() if m != suspect}, needed)
    ]


def _first(shares: Mapping[int, Numbers], needed: int) -> dict[int, Numbers]:
    return {member: shares[member] for member in sorted(shares)[:needed]}


def _agree(field: Field, shares: Mapping[int, Numbers], needed: int) -> bool:
    chosen = _first(shares, needed)
    return all(
        np.array_equal(_at(field, chosen, member + 1), value)
        for member, value in shares.items()
        if member not in chosen
    )


def _at(field: Field, shares: Mapping[int, Numbers], point: int) -> Numbers:
    """The value at ``point`` of the polynomial through ``shares``, by Lagrange's formula."""
    prime = field.prime
    total = np.zeros(len(next(iter(shares.values()))), np.uint64)
    points = [member + 1 for member in shares]
    for here, value in zip(points, shares.values(), strict=True):
        above, below = 1, 1
        for other in points:
            if other != here:
                above = above * (point - other) % prime
                below = below * (here - other) % prime
        weight = np.uint64(above * pow(below, -1, prime) % prime)
        total = (total + value * weight % np.uint64(prime)) % np.uint64(prime)
    return total
