"""Robust rules: the same bits for any order of arrival, and what a minority can do under each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recast_core.heads import head_kind, right_answers
from server.rounds.aggregation import aggregation, shares
from server.rounds.contribution import Aggregate, Contribution
from server.rounds.rules.agreement import VOTERS
from server.rounds.weights import limited, limited_statistics

DIMENSION = 5
ALL = ("clipped", "mean", "median", "trimmed", "geometric-median", "krum", "multi-krum")
ROBUST = tuple(name for name in ALL if name != "mean")
numbers = st.floats(-100, 100, width=32)
vectors = arrays(np.float32, DIMENSION, elements=numbers)
contributions = st.lists(
    st.builds(Contribution, vectors, st.integers(1, 10**6)), min_size=1, max_size=8
)
ZERO = np.zeros(DIMENSION, np.float32)


def honest(count: int, seed: int = 0) -> list[Contribution]:
    """Updates of length about 1 that agree, with a third of it of their own."""
    random = np.random.default_rng(seed)
    common = random.normal(size=DIMENSION) / np.sqrt(DIMENSION)
    return [
        Contribution(
            (common + random.normal(size=DIMENSION) / 3 / np.sqrt(DIMENSION)).astype(np.float32),
            int(random.integers(20, 60)),
        )
        for _ in range(count)
    ]


def result(rule: str, given_: Sequence[Contribution]) -> np.ndarray:
    return aggregation(rule)(ZERO, given_)


@pytest.mark.parametrize("rule", ALL)
@given(start=vectors, given_=contributions, random=st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_change_a_bit(
    rule: str, start: np.ndarray, given_: list[Contribution], random: object
) -> None:
    shuffled = list(given_)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found: Aggregate = aggregation(rule)
    assert found(start, shuffled).tobytes() == found(start, given_).tobytes()
    assert found(start, given_).dtype == np.float32
    assert np.isfinite(found(start, given_)).all()


@pytest.mark.parametrize("rule", ALL)
def test_alone_a_client_is_taken_at_its_word_and_nobody_changes_nothing(rule: str) -> None:
    one = honest(1)
    np.testing.assert_allclose(result(rule, one), one[0].offsets, rtol=1e-6)
    start = np.array([1, 2, 3, 4, 5], np.float32)
    untouched = aggregation(rule)(start, [])
    assert untouched.tolist() == start.tolist()
    untouched += 1
    assert start.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("rule", ALL)
@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_that_agree_are_averaged_or_one_of_them_taken(rule: str, count: int) -> None:
    given_ = honest(count)
    mean = np.mean([one.offsets for one in given_], axis=0)
    assert np.linalg.norm(result(rule, given_) - mean) < 0.5


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("liars", [1, 2, 3])
@pytest.mark.parametrize("lie", ["negated", "far", "noise"])
def test_a_minority_of_ten_does_not_decide_where_the_round_goes(
    rule: str, liars: int, lie: str
) -> None:
    given_ = honest(10)
    wanted = result("mean", given_[liars:])
    random = np.random.default_rng(1)
    for place in range(liars):
        told = given_[place].offsets
        lies = {"negated": -10 * told, "far": np.full(DIMENSION, 6e4), "noise": None}[lie]
        if lies is None:
            lies = 10 * random.normal(size=DIMENSION)
        given_[place] = Contribution(lies.astype(np.float32), given_[place].examples)
    found = result(rule, given_)
    assert np.linalg.norm(found - wanted) < 0.6 * np.linalg.norm(wanted)
    assert np.linalg.norm(result("mean", given_) - wanted) > 0.6 * np.linalg.norm(wanted)


@pytest.mark.parametrize("rule", ["clipped", "mean", "geometric-median"])
def test_rules_that_weigh_count_examples(rule: str) -> None:
    given_ = honest(3)
    heavy = [*given_[:2], Contribution(given_[2].offsets, 50 * given_[2].examples)]
    before, after = result(rule, given_), result(rule, heavy)
    towards = given_[2].offsets
    assert np.linalg.norm(after - towards) < np.linalg.norm(before - towards)


def differing(count: int, seed: int, hostile: int = 0) -> list[Contribution]:
    """Updates whose own part is twice what they have in common; colluders send one against it."""
    random = np.random.default_rng(seed)
    common = random.normal(size=48) / np.sqrt(48)
    rows = common + 2 * random.normal(size=(count, 48)) / np.sqrt(48)
    rows[:hostile] = -2 * rows[:hostile].mean(0)
    return [Contribution(row.astype(np.float32), int(random.integers(20, 60))) for row in rows]


def test_three_that_agree_are_left_out_where_honest_clients_differ_much() -> None:
    counted = np.array([shares("clipped")(differing(10, seed, 3)) for seed in range(40)])
    assert (counted[:, :3] > 0).mean() < 0.05
    assert (counted[:, 3:] > 0).mean() > 0.95


def test_nobody_is_left_out_where_honest_clients_differ_much_and_nobody_attacks() -> None:
    counted = np.array([shares("clipped")(differing(10, seed)) for seed in range(40)])
    assert (counted > 0).mean() > 0.99


def test_a_third_of_very_many_clients_is_left_out_likewise() -> None:
    counted = np.array(shares("clipped")(differing(VOTERS + 500, 0, 457)))
    assert not (counted[:457] > 0).any()
    assert (counted[457:] > 0).mean() > 0.95


@given(given_=contributions)
def test_fewer_than_half_are_left_out_whatever_was_sent(given_: list[Contribution]) -> None:
    counted = shares("clipped")(given_)
    assert 2 * sum(share == 0 for share in counted) < len(given_)


def test_three_of_ten_that_claim_all_images_do_not_outweigh_the_other_seven() -> None:
    common = np.ones(DIMENSION, np.float32)
    aside = common + np.array([1, -1, 0, 0, 0], np.float32)
    claims = [*[Contribution(aside, 2**31)] * 3, *[Contribution(common, 40)] * 7]
    found = aggregation("clipped")(ZERO, claims)
    assert np.linalg.norm(found - common) < np.linalg.norm(found - aside)
    believed = aggregation("clipped")(ZERO, [*[Contribution(aside, 60)] * 3, *claims[3:]])
    assert found.tobytes() == believed.tobytes()


def test_a_shortened_update_says_how_much_of_it_counted() -> None:
    given_ = [*honest(4), Contribution((100 * honest(1)[0].offsets).astype(np.float32), 30)]
    found = shares("clipped")(given_)
    assert found[:4] == [1.0] * 4
    assert 0 < found[4] < 0.05
    assert shares("mean")(given_) == [1.0] * 5
    assert sum(shares("krum")(given_)) == 1
    kept = shares("multi-krum")(given_)
    assert sorted(set(kept)) == [0, 1]
    assert kept[4] == 0


def test_clients_that_learned_nothing_do_not_clip_the_others_to_nothing() -> None:
    given_ = [*[Contribution(ZERO, 30)] * 6, *honest(4)]
    assert np.linalg.norm(result("clipped", given_)) > 0.1


def test_one_of_two_clients_cannot_raise_the_limit_of_weights_by_claiming_more() -> None:
    assert limited([2**32 - 1, 40], 3.0) == [120, 40]
    assert limited([2**32 - 1, 40, 50], 3.0) == [150, 40, 50]
    assert limited([40, 0, 50], 3.0) == [40, 0, 50]
    assert limited([2**32 - 1, 40], 0.0) == [2**32 - 1, 40]
    assert limited([7], 1.0) == [7]
    assert limited([], 3.0) == limited([0], 3.0)[:0] == []


@pytest.mark.parametrize("kind", ["means", "ridge", "shared"])
def test_a_head_does_not_follow_one_client_that_claims_everything(kind: str) -> None:
    random = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(3, 4, generator=random)
    told = []
    for _ in range(6):
        labels = torch.arange(30) % 3
        features = centres[labels] + torch.randn(30, 4, generator=random)
        told.append(head_kind(kind).statistics(features, labels, 3))
    wrong = head_kind(kind).statistics(centres.roll(1, 0)[labels] + 0.1 * features, labels, 3)
    liar = dict(wrong) | {"counts": torch.full((3,), 2**31 - 1, dtype=torch.int32)}
    tests = centres[labels] + torch.randn(30, 4, generator=random)

    def right(most: float) -> int:
        head = head_kind(kind).merge(limited_statistics(kind, [*told, liar], most), 3)
        assert head is not None
        return right_answers(head, tests, labels)

    assert right(3.0) > 20 > right(0.0)
    assert limited_statistics(kind, told, 3.0) == told


@pytest.mark.parametrize("kind", ["means", "ridge", "shared"])
@pytest.mark.parametrize("times", [1e3, 1e5])
def test_a_head_does_not_follow_one_client_whose_features_are_huge(kind: str, times: float) -> None:
    random = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(3, 4, generator=random)
    told = []
    for _ in range(9):
        labels = torch.arange(30) % 3
        features = centres[labels] + torch.randn(30, 4, generator=random)
        told.append(head_kind(kind).statistics(features, labels, 3))
    huge = dict(told.pop())
    for name in ("gram", "scales", "weight", "bias"):
        if name in huge:
            huge[name] = huge[name] * (-(times**2) if name == "gram" else times)
    if kind == "ridge":
        huge["gram"], huge["means"] = huge["gram"].abs(), -times * huge["means"]
    tests = centres[labels] + torch.randn(30, 4, generator=random)

    def right(most: float) -> int:
        head = head_kind(kind).merge(limited_statistics(kind, [*told, huge], most), 3)
        assert head is not None
        return right_answers(head, tests, labels)

    assert right(3.0) > 20
    assert limited_statistics(kind, told, 3.0) == told
