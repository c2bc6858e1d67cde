"""The examples that hypothesis tries: the same each time, unless somebody searches for more."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

SAME, SEARCH = "recast", "search"
COUNTS = {SAME: 60, SEARCH: 1000}


def choose(config: pytest.Config) -> None:
    """Register the profiles, and load that of the suite where the command line names none."""
    for name, count in COUNTS.items():
        settings.register_profile(
            name,
            settings.get_profile("default"),
            max_examples=count,
            derandomize=name == SAME,
            print_blob=True,
            # The first call in a process imports and warms up, and a busy machine stands still.
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
    if config.getoption("--hypothesis-profile", None) is None:
        settings.load_profile(SAME)
        forget_the_modules()


def forget_the_modules() -> None:
    """Draw no constants of the code that is imported: what that is depends on the tests before."""
    if hasattr(providers, "_get_local_constants"):
        nothing = providers.Constants()
        providers._get_local_constants = lambda: nothing


def examples(count: int = COUNTS[SAME], *, shared: bool = False) -> settings:
    """As many examples as a test has time for, in proportion more in a search.

    Args:
        count: How many the suite tries.
        shared: Whether the test's fixtures hold nothing that one example could spoil for the next.
    """
    checks = [HealthCheck.too_slow]
    if shared:
        checks.append(HealthCheck.function_scoped_fixture)
    return settings(
        max_examples=max(1, count * settings.default.max_examples // COUNTS[SAME]),
        suppress_health_check=checks,
    )
