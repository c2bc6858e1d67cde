"""Rounding at random: right on average, and hanging on nothing but its seed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protos import recast_v1_pb2 as pb
from recast_core.wire.codec import WIDTHS, Encoded, Vector, decode
from recast_core.wire.messages import Hyperparameters
from recast_core.wire.rounding import client_seed
from recast_core.wire.transforms import round_update

D, DRAWS = 16, 4000
INTEGERS = [bits for bits in WIDTHS if bits < 16]


def rounded(offsets: Vector, bits: int, seed: int, stochastic: bool = True) -> Encoded:
    hyper = Hyperparameters(bits=bits, stochastic=stochastic)
    return round_update(offsets, None, pb.Broadcast(), hyper, seed)


@pytest.mark.parametrize("bits", INTEGERS)
def test_over_a_clients_rounds_every_number_is_said_right_on_average(bits: int) -> None:
    offsets = np.linspace(-1, 0.93, D, dtype=np.float32)
    seeds = [client_seed(0, 1, round_, 3) for round_ in range(DRAWS)]
    said = np.array([decode(rounded(offsets, bits, seed), D, bits) for seed in seeds])
    step = 2.0 if bits == 1 else 1 / ((1 << (bits - 1)) - 1)
    # Five standard errors, each draw within a step at worst.
    np.testing.assert_allclose(said.mean(0), offsets, atol=5 * step / 2 / DRAWS**0.5)
    # Numbers are rounded apart: no draw decides over another.
    spread = said.std(0) > 0.05 * step
    together = np.corrcoef(said[:, spread].T) - np.eye(int(spread.sum()))
    assert np.abs(together).max() < 6 / DRAWS**0.5


@pytest.mark.parametrize("bits", INTEGERS)
def test_numbers_that_a_level_says_exactly_are_said_so_whatever_the_seed(bits: int) -> None:
    top = (1 << (bits - 1)) - 1 or 1
    offsets = np.array([-top, top, *([0, 1 - top] if bits > 1 else [])], np.float32)
    for seed in range(200):
        back = decode(rounded(offsets, bits, seed), len(offsets), bits)
        np.testing.assert_array_equal(back, offsets)


vectors = arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e3, 1e3, width=32))


@given(vectors, st.sampled_from(INTEGERS), st.lists(st.integers(0, 2**32 - 1), max_size=3))
def test_the_seed_alone_decides_whatever_was_rounded_before(
    offsets: Vector, bits: int, others: list[int]
) -> None:
    once = rounded(offsets, bits, 5)
    for seed in others:
        rounded(offsets[: len(offsets) // 2 + 1], bits, seed)
    assert rounded(offsets, bits, 5) == once


def test_threads_do_not_disturb_one_another() -> None:
    offsets = np.random.default_rng(0).normal(size=200).astype(np.float32)
    seeds = list(range(400))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: rounded(offsets, 5, seed), seeds))
    assert found == [rounded(offsets, 5, seed) for seed in seeds]
    assert len({encoded.data for encoded in found}) == len(seeds)


@given(vectors, st.sampled_from(WIDTHS))
def test_to_nearest_no_seed_is_used(offsets: Vector, bits: int) -> None:
    if bits == 16:
        offsets = offsets.clip(-6e4, 6e4)
    assert rounded(offsets, bits, 1, stochastic=False) == rounded(offsets, bits, 2, False)


def test_seeds_of_clients_rounds_and_tasks_differ() -> None:
    seeds = {
        client_seed(seed, task, round_, client)
        for seed in range(3)
        for task in range(3)
        for round_ in range(3)
        for client in range(50)
    }
    assert len(seeds) == 3 * 3 * 3 * 50


@given(st.lists(st.integers(0, (1 << 32) - 1), min_size=4, max_size=4))
def test_the_seeds_of_neighbours_are_those_of_numpys_seed_sequence(told: list[int]) -> None:
    assert client_seed(*told) == int(np.random.SeedSequence(told).generate_state(1)[0])


@pytest.mark.parametrize("seed", [1 << 32, (1 << 63) + 5])
def test_so_is_that_of_a_long_seed(seed: int) -> None:
    told = [seed, 1, 2, 300]
    assert client_seed(*told) == int(np.random.SeedSequence(told).generate_state(1)[0])
