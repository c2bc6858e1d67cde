"""Heads: what they send is exact, counted, and never diluted by clients that lack a class."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recast_core.errors import RecastError
from recast_core.heads import (
    LocalLinear,
    Means,
    RidgeSums,
    SharedLinear,
    head_kind,
    head_names,
    ridge_head,
    sent_bytes,
    sent_numbers,
)
from recast_core.heads.base import ABSENT
from recast_core.heads.quantise import quantise_rows, restore_rows
from recast_core.heads.ridge_sums import moments, solve_ridge
from tests.examples import examples

WIDTH, CLASSES = 12, 5


def data(rows: int = 200, seed: int = 0, offset: float = 3.0) -> tuple[Tensor, Tensor]:
    """Separable clusters far from the origin, where naive second moments lose their digits."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    noise = torch.randn(rows, WIDTH, generator=generator)
    return 2 * centres[labels] + 0.5 * noise + offset, labels


def skewed(features: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Three clients, none of which has every class."""
    parts = [labels < 2, (labels == 2) | (labels == 1), labels > 2]
    keep = [part.clone() for part in parts]
    keep[0][labels == 1] = torch.arange(int((labels == 1).sum())) % 2 == 0
    keep[1] &= ~keep[0]
    return [(features[k], labels[k]) for k in keep]


def accuracy(head: torch.nn.Linear, features: Tensor, labels: Tensor) -> float:
    return float((head(features).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("name", [n for n in head_names() if not head_kind(n).kept])
def test_each_kind_separates_clusters_and_never_chooses_an_absent_class(name: str) -> None:
    kind = head_kind(name)
    features, labels = data()
    known = labels != 3
    head = kind.fit(features[known], labels[known], CLASSES)
    test_features, test_labels = data(seed=1)
    seen = test_labels != 3
    assert accuracy(head, test_features[seen], test_labels[seen]) > 0.95
    assert not bool((head(test_features).argmax(1) == 3).any())
    assert not any(p.requires_grad for p in head.parameters())


@pytest.mark.parametrize("name", ["local", "linear"])
def test_local_kinds_send_nothing(name: str) -> None:
    kind = head_kind(name)
    assert kind.statistics(*data(), CLASSES) == {}
    assert sent_bytes({}) == 0
    assert kind.merge([], CLASSES) is None


@pytest.mark.parametrize("name", ["means", "ridge", "shared"])
def test_a_merged_head_knows_every_class_though_no_client_does(name: str) -> None:
    kind = head_kind(name)
    features, labels = data(600)
    parts = [kind.statistics(x, y, CLASSES) for x, y in skewed(features, labels)]
    head = kind.merge(parts, CLASSES)
    assert head is not None
    assert accuracy(head, *data(seed=1)) > (0.8 if name == "shared" else 0.95)


@pytest.mark.parametrize("name", ["means", "ridge", "shared"])
def test_merging_does_not_depend_on_the_order_of_clients(name: str) -> None:
    kind = head_kind(name)
    parts = [kind.statistics(x, y, CLASSES) for x, y in skewed(*data())]
    one, other = kind.merge(parts, CLASSES), kind.merge(parts[::-1], CLASSES)
    assert one is not None
    assert other is not None
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.bias, other.bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 3.0, 10.0])
def test_the_federated_ridge_head_equals_the_centralised_one(offset: float) -> None:
    features, labels = data(offset=offset)
    kind = RidgeSums()
    split = [kind.statistics(x, y, CLASSES) for x, y in skewed(features, labels)]
    merged, central = kind.merge(split, CLASSES), kind.fit(features, labels, CLASSES)
    scale = float(central.weight.abs().max())
    torch.testing.assert_close(merged.weight, central.weight, rtol=1e-5, atol=1e-5 * scale)
    probe = data(seed=2, offset=offset)[0].double()
    torch.testing.assert_close(
        merged.double()(probe), central.double()(probe), rtol=1e-5, atol=1e-5 * (1 + offset)
    )


@pytest.mark.parametrize("penalty", [1e-3, 1e-1, 10.0])
def test_the_moments_solve_the_ridge_regression_of_the_data(penalty: float) -> None:
    features, labels = data()
    head = solve_ridge(moments(features, labels, CLASSES), penalty)
    x, y = features.double(), torch.nn.functional.one_hot(labels, CLASSES).double()
    x0, y0 = x - x.mean(0), y - y.mean(0)
    power = x0.square().sum(1).mean()
    weight = torch.linalg.solve(x0.T @ x0 + penalty * power * torch.eye(WIDTH), x0.T @ y0)
    torch.testing.assert_close(head.weight, weight.T.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(head.bias, (y.mean(0) - x.mean(0) @ weight).float())


def test_the_ridge_of_moments_is_as_good_as_the_ridge_of_leave_one_out() -> None:
    train, test = data(80), data(seed=1)
    closed = accuracy(ridge_head(*train, CLASSES), *test)
    assert accuracy(RidgeSums().fit(*train, CLASSES), *test) >= closed - 0.02


def test_ridge_works_with_fewer_examples_than_features() -> None:
    features, labels = data(8)
    assert torch.isfinite(RidgeSums().fit(features, labels, CLASSES).weight).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_merged_means_equal_the_means_of_all_data_but_for_quantisation(bits: int) -> None:
    features, labels = data(600)
    kind = Means(bits)
    parts = [kind.statistics(x, y, CLASSES) for x, y in skewed(features, labels)]
    merged, central = kind.merge(parts, CLASSES), kind.fit(features, labels, CLASSES)
    probe, wanted = data(seed=1)
    assert abs(accuracy(merged, probe, wanted) - accuracy(central, probe, wanted)) < 0.02
    if bits == 8:
        torch.testing.assert_close(merged.weight, central.weight, atol=0.01, rtol=0.05)


def test_a_client_without_a_class_leaves_that_classs_row_alone() -> None:
    features, labels = data()
    one, two = labels < 3, labels > 0
    for kind, tensor in ((Means(), "means"), (SharedLinear(), "weight")):
        sent = kind.statistics(features[one], labels[one], CLASSES)
        assert sent["classes"].tolist() == [0, 1, 2]
        assert sent[tensor].shape[0] == 3
        other = kind.statistics(features[two], labels[two], CLASSES)
        merged = kind.merge([sent, other], CLASSES)
        if tensor == "weight":
            torch.testing.assert_close(merged.weight[0], sent["weight"][0])
            share = sent["counts"][1] / (sent["counts"][1] + other["counts"][0])
            mean = share * sent["weight"][1] + (1 - share) * other["weight"][0]
            torch.testing.assert_close(merged.weight[1], mean)


def test_a_class_that_nobody_has_keeps_the_row_of_the_round_before() -> None:
    features, labels = data()
    start = SharedLinear().fit(features, labels, CLASSES)
    kind = SharedLinear(start)
    few = labels < 2
    merged = kind.merge([kind.statistics(features[few], labels[few], CLASSES)], CLASSES)
    assert torch.equal(merged.weight[2:], start.weight[2:])
    assert torch.equal(merged.bias[2:], start.bias[2:])


def test_bytes_sent_follow_the_formulas() -> None:
    features, labels = data()
    present, d = CLASSES, WIDTH

    def measured(kind: Means | RidgeSums | SharedLinear) -> int:
        return sent_bytes(kind.statistics(features, labels, CLASSES))

    assert measured(Means(8)) == present * (d + 10) + 4
    assert measured(Means(4)) == present * (d // 2 + 10) + 4
    assert measured(RidgeSums()) == 4 * d * (d + 1) // 2 + present * (4 * d + 6)
    assert measured(SharedLinear()) == present * (4 * d + 10)
    stats = RidgeSums().statistics(features, labels, CLASSES)
    assert sent_numbers(stats) == d * (d + 1) // 2 + present * (d + 2)


def test_the_logistic_head_is_the_same_whenever_it_is_fitted() -> None:
    one, other = (LocalLinear().fit(*data(), CLASSES) for _ in range(2))
    assert torch.equal(one.weight, other.weight)


@examples(100)
@given(
    st.integers(0, 6), st.integers(1, 9), st.sampled_from([4, 8]), st.integers(0, 2**31),
    st.sampled_from([0.0, 1e-6, 1.0, 1e6]),
)  # fmt: skip
def test_quantised_rows_are_within_half_a_step(
    rows: int, width: int, bits: int, seed: int, scale: float
) -> None:
    values = scale * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    whole, steps = quantise_rows(values, bits)
    restored = restore_rows(whole, steps, width)
    assert restored.shape == values.shape
    error = (restored - values.double()).abs()
    assert bool((error <= 0.5001 * steps.double().unsqueeze(1)).all())


def test_statistics_that_cannot_be_right_are_refused() -> None:
    features, labels = data()
    for kind in (Means(), RidgeSums(), SharedLinear()):
        good = kind.statistics(features, labels, CLASSES)
        with pytest.raises(RecastError, match="wait for"):
            kind.merge([], CLASSES)
        with pytest.raises(RecastError, match="beyond"):
            kind.merge([good], CLASSES - 1)
        floating = next(key for key, t in good.items() if t.is_floating_point())
        with pytest.raises(RecastError, match="NaN"):
            kind.merge([{**good, floating: good[floating] * float("nan")}], CLASSES)
        narrow = kind.statistics(features[:, 1:], labels, CLASSES)
        with pytest.raises(RecastError, match="one backbone"):
            kind.merge([good, narrow], CLASSES)
        with pytest.raises(RecastError, match="global class ids"):
            kind.statistics(features, labels, CLASSES - 1)
        with pytest.raises(RecastError, match="at least one example"):
            kind.statistics(features[:0], labels[:0], CLASSES)
    with pytest.raises(RecastError, match="did you mean means"):
        head_kind("mean")
    with pytest.raises(RecastError, match="choose 4 or 8"):
        Means(3)
    assert ABSENT < -1e3
