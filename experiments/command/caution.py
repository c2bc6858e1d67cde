"""Warnings on standard error: one line each, and the run goes on."""

from __future__ import annotations

import sys

MANY = 50


def warn_of_many(trained: int) -> None:
    """Say so where a task takes more coefficients than the method promises."""
    if trained > MANY:
        print(
            f"recast: warning: {trained} coefficients are trained, more than {MANY}: use fewer "
            "templates per group, more groups, or fewer targets",
            file=sys.stderr,
        )
