"""A name that nothing has: the choices, and one that is meant only where one is near."""

from __future__ import annotations

import pytest

from recast_core.choices import unknown
from recast_core.errors import RecastError
from server.rounds.aggregation import aggregation


def test_a_name_far_from_all_is_answered_with_the_choices_alone() -> None:
    with pytest.raises(RecastError) as caught:
        aggregation("nope")
    assert str(caught.value).startswith("unknown aggregation 'nope': choose ")
    assert "krum" in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_a_near_name_is_offered_also_by_a_short_form() -> None:
    assert unknown("rule", "krumm", ["mean", "krum"]).endswith("mean, krum (did you mean krum?)")
    assert unknown("method", "hed", ["head-only"], ["head"]).endswith("(did you mean head?)")
