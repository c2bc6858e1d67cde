"""The study of own statistics."""

from __future__ import annotations

from experiments.studies.one_round_fleet import Fleet
from experiments.studies.own_statistics import PARTS, accuracies
from experiments.studies.shift_fleet import deal
from experiments.studies.shift_judge import with_statistics


def test_of_a_skewed_fleet_half_of_the_norms_mend_what_all_of_them_spoil() -> None:
    found = accuracies("digits_resnet20", "digits[90%:]+contrast:4", 4, 0.1, [0])
    by_part = dict(zip(PARTS, found, strict=True))
    assert by_part[0.5] > by_part[0.0] + 0.5
    assert by_part[0.5] > by_part[1.0] + 0.1


def test_without_labels_a_network_that_is_sure_of_one_class_for_all_is_not_believed() -> None:
    fleet = Fleet("digits[80%:]+fog:5")
    dealt = deal(fleet.domain, 3, 1.0, 0, 0)
    assert not any(len(share.labels) for share in dealt)
    assert all(share.local for share in with_statistics(fleet.learner, dealt))
