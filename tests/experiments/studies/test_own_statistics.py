"""The study of own statistics."""

from __future__ import annotations

from experiments.studies.own_statistics import PARTS, accuracies


def test_of_a_skewed_fleet_half_of_the_norms_mend_what_all_of_them_spoil() -> None:
    found = accuracies("digits_resnet20", "digits[90%:]+contrast:4", 4, 0.1, [0])
    by_part = dict(zip(PARTS, found, strict=True))
    assert by_part[0.5] > by_part[0.0] + 0.5
    assert by_part[0.5] > by_part[1.0] + 0.1
