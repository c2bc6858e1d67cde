"""Names of classes as people write them."""

from __future__ import annotations

import pytest

from recast_core.classes import agreed, alike, check_names, strangers, task_ids
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


@pytest.mark.parametrize(
    ("plain", "strange", "letter"),
    [
        ("cat", "c\u0430t", "CYRILLIC SMALL LETTER A"),
        ("Oak", "\u039fak", "GREEK CAPITAL LETTER OMICRON"),
        ("caf\u00e9", "caf\u0435\u0301", "CYRILLIC SMALL LETTER IE"),
        ("st.-bernard", "st.\u2013bernard", "EN DASH"),
        ("cat", "c\u200bat", "ZERO WIDTH SPACE"),
    ],
)
def test_names_that_look_alike_are_told_with_the_letter(
    plain: str, strange: str, letter: str
) -> None:
    for names in ((plain, strange, "dog"), ("dog", strange, plain)):
        told = alike(names)
        assert told.startswith(f"{plain!r} and {strange!r} ({letter}) look alike and are not")
        assert "\n" not in told
    for own, other in ((plain, strange), (strange, plain)):
        with pytest.raises(RecastError, match=letter) as caught:
            task_ids((own, "dog"), (other, "dog"), {0})
        assert f"{own!r} looks like {other!r} of the task" in str(caught.value)


def test_names_that_do_not_look_alike_are_not_told() -> None:
    assert not alike(("cat", "Cat", "cot", "caf\u00e9", "cafe", "\u043a\u043e\u0442", "\u732b"))
    assert not alike(("\uff43\uff41\uff54", "cat", "class_007", "Class 7"))
