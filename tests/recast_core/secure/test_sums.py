"""Sums that hide their terms: exact, recovered by any that are enough, and told by no fewer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from recast_core.secure.channel import SALT_BYTES, TAG_BYTES, ForgedError, public_key, seal, unseal
from recast_core.secure.field import WIDTHS, Field
from recast_core.secure.levels import HEAVIEST, plan
from recast_core.secure.shamir import (
    InconsistentError,
    add,
    combine,
    liars,
    share,
    threshold,
)
from recast_core.wire.codec import CodecError


def summed(field, vectors, members, answering, needed):
    """Each vector shared among members, the shares added, and those of ``answering`` combined."""
    shares = np.stack([share(field, field.wrap(v), members, needed) for v in vectors])
    told = {member: add(field, shares[:, member]) for member in answering}
    return field.centred(combine(field, told, needed))


@given(
    st.integers(3, 12), st.sampled_from(WIDTHS), st.data(), st.integers(1, 9), st.integers(0, 2**32)
)
def test_a_sum_is_the_plain_sum_whoever_survives_and_whoever_answers(
    members, width, data, numbers, seed
):
    field, needed = Field(width), threshold(members)
    limit = field.prime // (2 * members) - 1
    random = np.random.default_rng(seed)
    everyone = random.integers(-limit, limit, (members, numbers), endpoint=True)
    places = st.lists(st.integers(0, members - 1), min_size=needed, max_size=members, unique=True)
    survivors, answering = data.draw(places), data.draw(places)
    found = summed(field, everyone[survivors], members, answering, needed)
    np.testing.assert_array_equal(found, everyone[survivors].sum(0))


@pytest.mark.parametrize("members", range(3, 33))
def test_no_server_has_enough_members_for_two_sums_even_if_a_third_answer_twice(members):
    assert 2 * threshold(members) > members + members // 3
    assert threshold(members) <= members


def test_fewer_shares_than_the_threshold_are_refused_and_say_nothing():
    field, needed = Field(2), threshold(7)
    secret = field.wrap(np.array([1, -2, 3]))
    shares = share(field, secret, 7, needed)
    with pytest.raises(ValueError, match="4 shares of 5"):
        combine(field, {member: shares[member] for member in range(4)}, needed)
    # To any further share there is another secret that these four agree with.
    guess = {member: shares[member] for member in range(4)}
    seen = set()
    for last in range(50):
        wrong = guess | {4: field.wrap(np.full(3, last))}
        seen.add(tuple(int(n) for n in combine(field, wrong, needed)))
    assert len(seen) == 50


@pytest.mark.parametrize("width", WIDTHS)
def test_a_share_of_all_zeros_looks_uniform(width):
    field = Field(width)
    shares = share(field, field.wrap(np.zeros(20_000, np.int64)), 5, threshold(5))
    for one in shares:
        low = np.frombuffer(field.pack(one), np.uint8).reshape(-1, width)[:, 0]
        # A prime just below a power of two leaves the lowest byte uniform to one in thousands.
        # What is no secret would have a p-value of 0, and the system's randomness has one as small
        # as this in one run of the suite in a thousand million.
        assert chisquare(np.bincount(low, minlength=256)).pvalue > 1e-11
    again = share(field, field.wrap(np.zeros(20_000, np.int64)), 5, threshold(5))
    assert not np.array_equal(shares, again)


def test_one_lying_share_is_found_and_left_out_and_two_spoil_the_sum_aloud():
    field, needed = Field(3), threshold(10)
    vectors = np.arange(30).reshape(10, 3) - 15
    shares = np.stack([share(field, field.wrap(v), 10, needed) for v in vectors])
    told = {member: add(field, shares[:, member]) for member in range(10)}
    told[2] = told[2] + np.uint64(1)
    np.testing.assert_array_equal(field.centred(combine(field, told, needed)), vectors.sum(0))
    assert liars(field, told, needed) == [2]
    fewer = {member: told[member] for member in range(8)}
    with pytest.raises(InconsistentError):  # one of eight where seven are needed: nobody can tell
        combine(field, fewer, needed)
    told[5] = told[5] + np.uint64(1)
    with pytest.raises(InconsistentError):
        combine(field, told, needed)


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_are_packed_in_their_width_and_others_are_refused(width):
    field = Field(width)
    numbers = field.random((100,))
    assert len(field.pack(numbers)) == 100 * width
    np.testing.assert_array_equal(field.unpack(field.pack(numbers), 100), numbers)
    with pytest.raises(ValueError, match="99 numbers"):
        field.unpack(field.pack(numbers), 99)
    with pytest.raises(ValueError, match="below the prime"):
        field.unpack(b"\xff" * width, 1)


KEYS = [bytes([n]) * 32 for n in range(1, 4)]


def test_a_sealed_share_opens_for_its_member_and_its_sum_alone():
    one, two, three = KEYS
    salt = bytes(SALT_BYTES)
    sealed = seal(one, public_key(two), salt, b"sum", b"share")
    assert len(sealed) == len(b"share") + TAG_BYTES
    assert unseal(two, public_key(one), salt, b"sum", sealed) == b"share"
    for private, sender, context, content in (
        (three, one, b"sum", sealed),  # another member's
        (two, three, b"sum", sealed),  # another sender's
        (two, one, b"another sum", sealed),
        (two, one, b"sum", bytes([sealed[0] ^ 1]) + sealed[1:]),
        (one, two, b"sum", sealed),  # sent back to whom it came from
    ):
        with pytest.raises(ForgedError):
            unseal(private, public_key(sender), salt, context, content)
    with pytest.raises(ForgedError):
        seal(one, bytes(32), salt, b"sum", b"share")


@given(
    st.lists(st.integers(0, 10_000), min_size=3, max_size=60),
    st.sampled_from([1, 4, 8, 16, 32]),
    st.integers(0, 2**32),
)
def test_the_mean_is_the_weighted_mean_to_half_a_step(examples, bits, seed):
    levels = plan(examples, 32, 2e-2, bits)
    reach = levels.step * levels.levels
    random = np.random.default_rng(seed)
    offsets = random.uniform(-1.5 * reach, 1.5 * reach, (min(len(examples), 32), 6))
    weights = [levels.weight(n) for n in examples[:32]]
    assert all(1 <= weight <= HEAVIEST for weight in weights)
    counted = np.stack([levels.count(row.astype(np.float32)) for row in offsets])
    total = (counted * np.array(weights)[:, None]).sum(0)
    assert levels.is_plausible(total, sum(weights))
    # The sum survives the field.
    np.testing.assert_array_equal(levels.field.centred(levels.field.wrap(total)), total)
    peaks = np.abs(offsets).max(1, keepdims=True)
    shortened = offsets * np.minimum(1, reach / peaks)
    wanted = np.average(shortened, axis=0, weights=weights)
    assert (
        np.abs(levels.mean(total, sum(weights)) - wanted).max() <= 0.5 * levels.step + 1e-6 * reach
    )
    assert not levels.is_plausible(total + 2 * levels.levels * sum(weights) + 1, sum(weights))


def test_nobody_counts_for_more_than_three_times_the_median_and_nan_is_refused():
    levels = plan([100] * 9 + [2**32 - 1], 32, 2e-2, 8)
    assert levels.weight(2**32 - 1) == 3 * levels.weight(100)
    with pytest.raises(CodecError, match="NaN"):
        levels.count(np.array([0, np.nan], np.float32))
