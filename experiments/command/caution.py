"""Warnings on standard error: one line each, and the run goes on."""

from __future__ import annotations

import sys

from recast_core.bank import TemplateBank
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


def warn_of_lone_layers(bank: TemplateBank) -> None:
    """Say so where no layer shares templates with another."""
    if all(len(each.modules) == 1 == each.count for each in bank.groups):
        print(
            "recast: warning: each group has one layer and one template, so that a coefficient "
            "only scales a weight: give one pattern for layers of one shape, as in --target "
            "'layers.*.fc', since a comma begins another group; or add --residual and templates",
            file=sys.stderr,
        )
