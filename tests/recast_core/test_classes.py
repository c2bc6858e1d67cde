"""Names of classes as people write them."""

from __future__ import annotations

import pytest

from recast_core.classes import agreed, check_names, strangers, task_ids
from recast_core.errors import RecastError


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("01", "1"),
        ("class_007", "Class 7"),
        ("cat", "\uff43\uff41\uff54"),
        ("izmir", "\u0130zmir"),
        ("strasse", "Stra\u00dfe"),
        ("cat", "cat/"),
        ("St. Bernard", "st bernard"),
    ],
)
def test_one_class_in_two_spellings_is_refused_and_not_two_classes(one: str, other: str) -> None:
    lists = {(one, "dog"): 2, (other, "dog"): 1}
    assert agreed(lists) == tuple(sorted((one, "dog")))
    with pytest.raises(RecastError, match=r"is .* in the task: use one spelling"):
        task_ids((other, "dog"), agreed(lists), {0})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1.5", "15"),
        ("1/2", "12"),
        ("10", "100"),
        ("1.01", "1.1"),
        ("0", "00a"),
        ("caf\u00e9", "cafe"),
    ],
)
def test_other_classes_stay_apart(one: str, other: str) -> None:
    assert agreed({(one, "dog"): 1, (other, "dog"): 1}) == tuple(sorted((one, other, "dog")))


def test_lists_that_nothing_leads_from_one_to_the_other_are_seen() -> None:
    synsets, words = ("n01440764", "n01443537"), ("goldfish", "tench")
    assert strangers({synsets: 1, words: 1}) == (words, synsets)
    assert strangers({synsets: 1, words: 1, ("n01440764", "tench"): 1}) is None
    assert strangers({("a", "b"): 1, ("c", "d"): 1, ("B", "C"): 1}) is None
    assert strangers({words: 1}) is None


def test_a_class_without_a_name_is_told_to_have_one() -> None:
    with pytest.raises(RecastError, match="without a name: give each class one"):
        check_names(("", "dog"))
