"""Warnings on standard error: one line each, and the run goes on."""

from __future__ import annotations

import sys

from recast_core.start import Start

MANY = 50


def warn_of_many(start: Start) -> None:
    """Say so where a task takes more coefficients of a bank than the method promises."""
    if start.template_count and start.trained > MANY:
        print(
            f"recast: warning: {start.trained} coefficients are trained, more than {MANY}: use "
            "fewer templates per group, more groups, or fewer targets",
            file=sys.stderr,
        )
