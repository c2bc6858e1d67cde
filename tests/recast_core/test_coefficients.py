"""The flat vector of coefficients: its documented order, its client axis, what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recast_core.coefficients import Coefficients
from recast_core.errors import RecastError

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5)
sets_of = st.integers(1, 3)


def numbered(sizes: list[int], start: int = 0) -> tuple[Tensor, ...]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return tuple(
        torch.arange(end - n + start, end + start).float()
        for end, n in zip(ends, sizes, strict=True)
    )


@given(shapes, sets_of)
def test_flat_holds_row_after_row_and_set_after_set(sizes: list[int], sets: int) -> None:
    found = Coefficients(numbered(sizes), sets)
    expected = [value for row in numbered(sizes) for _ in range(sets) for value in row.tolist()]
    assert found.flat.tolist() == expected
    assert found.flat.numel() == sets * found.sent_count == sets * sum(sizes)


@given(shapes, sets_of, st.integers(0, 2**31))
def test_what_is_sent_is_each_rows_mean_over_the_sets(
    sizes: list[int], sets: int, seed: int
) -> None:
    found = Coefficients(numbered(sizes), sets)
    with torch.no_grad():
        found.flat.normal_(generator=torch.Generator().manual_seed(seed))
    expected, at = [], 0
    for n in sizes:
        block = found.flat[at : at + sets * n].detach().reshape(sets, n)
        expected += block.mean(0).tolist()
        at += sets * n
    torch.testing.assert_close(found.sent(), torch.tensor(expected))


@given(shapes, sets_of)
def test_a_loaded_vector_is_the_one_that_is_sent(sizes: list[int], sets: int) -> None:
    found = Coefficients(numbered(sizes), sets)
    vector = torch.cat(numbered(sizes, start=100))
    found.load(vector)
    torch.testing.assert_close(found.sent(), vector)
    for index, row in enumerate(numbered(sizes, start=100)):
        torch.testing.assert_close(found.row(index).detach(), row)
    found.load()
    torch.testing.assert_close(found.sent(), torch.cat(numbered(sizes)))
    for index, row in enumerate(numbered(sizes)):
        assert torch.equal(found.initial_row(index), row)


@given(shapes, sets_of, st.integers(1, 4))
def test_a_client_axis_keeps_each_clients_vector(sizes: list[int], sets: int, clients: int) -> None:
    found = Coefficients(numbered(sizes), sets)
    assert found.clients is None
    vectors = torch.stack([torch.cat(numbered(sizes, 10 * j)) for j in range(clients)])
    found.load(vectors)
    assert found.clients == clients
    torch.testing.assert_close(found.sent(), vectors)
    for index, n in enumerate(sizes):
        assert found.row(index).shape == (clients, n)
    found.load(vectors[0])
    assert found.clients is None


def test_temporarily_puts_values_shape_and_gradient_back() -> None:
    found = Coefficients(numbered([2, 3]), 2)
    found.row(0).sum().backward()
    flat, gradient, before = found.flat, found.flat.grad, found.flat.detach().clone()
    with found.temporarily(torch.full((4, 5), 7.0)):
        assert found.clients == 4
    assert found.flat is flat
    assert torch.equal(found.flat.detach(), before)
    assert found.flat.grad is gradient
    with pytest.raises(RecastError), found.temporarily(torch.zeros(4)):
        pass
    assert torch.equal(found.flat.detach(), before)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_and_changes_nothing(wrong: float) -> None:
    found = Coefficients(numbered([3]))
    with pytest.raises(RecastError, match="NaN or infinity"):
        found.load(torch.tensor([0.0, wrong, 0.0]))
    assert found.sent().tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", [(2,), (4,), (2, 2), (1, 1, 3), ()])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RecastError, match="takes 3"):
        Coefficients(numbered([3])).load(torch.zeros(shape))


def test_the_sent_vector_is_a_copy() -> None:
    found = Coefficients(numbered([3]))
    found.sent().fill_(9)
    assert found.sent().tolist() == [0, 1, 2]
    assert not found.sent().requires_grad
