"""What sources are made of: every shift once, then several; none of a family that is held out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recast_core import RecastError
from recast_core.shifts.compositions import (
    PAIRS,
    UP_TO_THREE,
    Rule,
    allowed,
    composed,
    compositions,
    described,
    name_of,
)
from recast_core.shifts.table import NEED_COLOUR, SHIFTS, Shift, families, family_of
from recast_core.sources.fine_tune import Losses
from recast_core.sources.source_networks import SourceFolder, SourceNetwork


def test_all_shifts_are_allowed_unless_images_are_grey() -> None:
    assert set(allowed(())) == set(SHIFTS)
    assert set(SHIFTS) - set(allowed((), grey=True)) == NEED_COLOUR


@pytest.mark.parametrize("family", families())
def test_nothing_of_a_family_that_is_held_out(family: str) -> None:
    choice = allowed((), (family,))
    made = compositions(60, choice, 0)
    assert choice
    assert not [s for each in made for s in each if family_of(str(s)) == family]


def test_names_families_and_severities_choose() -> None:
    choice = allowed(("fog:4", "motion", "noise"))
    assert set(map(name_of, choice)) == {"fog", "motion", "gauss", "shot", "impulse", "speckle"}
    made = compositions(40, choice, 3)
    assert {s.severity for each in made for s in each if s.name == "fog"} == {4}


@pytest.mark.parametrize(
    ("names", "without", "grey"),
    [
        (("smog",), (), False),
        (("fog:6",), (), False),
        ((), ("smog",), False),
        (("fog", "rain"), ("weather",), False),
        (("saturate",), (), True),
        ((), families(), False),
    ],
)
def test_what_cannot_be_is_one_line(
    names: tuple[str, ...], without: tuple[str, ...], grey: bool
) -> None:
    with pytest.raises(RecastError) as refused:
        allowed(names, without, grey=grey)
    assert "\n" not in str(refused.value)


def test_singles_come_first_then_pairs_of_two() -> None:
    choice = allowed(())
    made = compositions(len(choice) + 20, choice, 0, PAIRS)
    assert [each[0].name for each in made[: len(choice)]] == list(choice)
    assert {len(each) for each in made[: len(choice)]} == {1}
    for first, second in made[len(choice) :]:
        assert first.name != second.name
    assert compositions(10, choice, 0, PAIRS) == made[:10]
    assert compositions(10, choice, 1, PAIRS) != made[:10]


def test_bold_singles_come_first_then_one_to_three_at_once() -> None:
    choice = allowed(())
    made = compositions(len(choice) + 200, choice, 0)
    first, later = made[: len(choice)], made[len(choice) :]
    assert [each[0].name for each in first] == list(choice)
    assert {len(each) for each in first} == {1}
    assert {each[0].severity for each in first} == {4, 5}
    for size, severities in {1: {2, 3, 4, 5}, 2: {2, 3, 4, 5}, 3: {2, 3, 4}}.items():
        ones = [each for each in later if len(each) == size]
        assert len(ones) > 40
        assert all(len({shift.name for shift in each}) == size for each in ones)
        assert {shift.severity for each in ones for shift in each} == severities
    assert len(later) == sum(len(each) in (1, 2, 3) for each in later)
    assert compositions(40, choice, 0) == made[:40]
    assert compositions(40, choice, 1) != made[:40]


def test_no_more_at_once_than_there_are() -> None:
    made = compositions(30, ("fog", "rain"), 0)
    assert {len(each) for each in made} == {1, 2}


@pytest.mark.parametrize(
    ("rule", "tells"),
    [
        (PAIRS, ["gauss:3", "shot:5", "impulse:4", "snow:2+fog:2"]),
        (UP_TO_THREE, ["gauss:5", "shot:4", "impulse:4", "far:2+pixelate:5"]),
    ],
)
def test_a_seed_draws_what_it_always_drew(rule: Rule, tells: list[str]) -> None:
    made = compositions(48, allowed(()), 0, rule)
    assert [described(made[place]) for place in (0, 1, 2, 47)] == tells


def test_a_folder_of_one_rule_is_no_folder_of_the_other(tmp_path: Path) -> None:
    plans = [
        {"sources": [described(each) for each in compositions(12, allowed(()), 0, rule)]}
        for rule in (PAIRS, UP_TO_THREE)
    ]
    losses = Losses(1.0, 0.5)
    SourceFolder(tmp_path, plans[0]).save(0, SourceNetwork("gauss:3", losses, {}))
    with pytest.raises(RecastError, match="other settings or data"):
        SourceFolder(tmp_path, plans[1])


def test_one_shift_alone_comes_at_other_severities() -> None:
    made = compositions(12, ("fog",), 0)
    assert {each[0].name for each in made} == {"fog"}
    assert len(set(made)) > 1


def test_a_composition_is_one_shift_after_the_other() -> None:
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    both = (Shift("fog", 3), Shift("gauss", 2))
    assert described(both) == "fog:3+gauss:2"
    made = composed(images, both, 7)
    assert torch.equal(made, composed(images, both, 7))
    assert not torch.equal(made, composed(images, both, 8))
    assert torch.equal(made[:2], composed(images[:2], both, 7))
    assert not torch.equal(made, composed(images, both[:1], 7))
