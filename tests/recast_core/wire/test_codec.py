"""The codec: half a step at most, one length, one encoding, and no bytes that break it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recast_core.errors import RecastError
from recast_core.wire.codec import (
    WIDTHS,
    CodecError,
    Encoded,
    check_bits,
    decode,
    encode,
    encoded_length,
    fitted,
)

widths = st.sampled_from(WIDTHS)
# What training can give; float16 ends at 65504.
numbers = st.floats(-1e4, 1e4, width=32, allow_subnormal=False).filter(
    lambda value: value == 0 or abs(value) > 1e-30
)
vectors = arrays(np.float32, st.integers(1, 60), elements=numbers)
SMALLEST_HALF = 2.0**-24
SCALE_ERROR = 2.0**-12  # relative: scales have 12 bits


def half_step(vector: np.ndarray, bits: int) -> np.ndarray | float:
    if bits == 32:
        return 0.0
    if bits == 16:
        return np.maximum(np.abs(vector) * 2.0**-11, SMALLEST_HALF / 2)
    return 0.5 * float(np.abs(vector).max()) / ((1 << (bits - 1)) - 1) * (1 + SCALE_ERROR)


@given(vectors, st.sampled_from([width for width in WIDTHS if width > 1]))
def test_a_vector_comes_back_within_half_a_step(vector: np.ndarray, bits: int) -> None:
    back = decode(encode(vector, bits), len(vector), bits)
    assert back.dtype == np.float32
    assert (np.abs(back.astype(float) - vector) <= half_step(vector, bits)).all()


@given(vectors)
def test_one_bit_keeps_signs_and_the_mean_magnitude(vector: np.ndarray) -> None:
    back = decode(encode(vector, 1), len(vector), 1)
    magnitude = np.abs(vector).astype(np.float64).mean()
    np.testing.assert_allclose(np.abs(back), magnitude, rtol=SCALE_ERROR)
    if magnitude:
        assert ((back > 0) == (vector >= 0)).all()


@given(vectors, st.sampled_from([width for width in WIDTHS if width <= 8]), st.integers(0, 2**32))
def test_stochastic_rounding_stays_within_a_step_and_follows_its_seed(
    vector: np.ndarray, bits: int, seed: int
) -> None:
    encoded, again = (encode(vector, bits, np.random.default_rng(seed)) for _ in range(2))
    assert encoded == again
    back = decode(encoded, len(vector), bits)
    step = 2 * encoded.scale if bits == 1 else encoded.scale
    assert (np.abs(back.astype(float) - vector) <= step * (1 + 1e-3)).all()


@pytest.mark.parametrize("bits", [8, 5, 3, 2, 1])
def test_stochastic_rounding_is_right_on_average(bits: int) -> None:
    random = np.random.default_rng(0)
    vector = np.linspace(-1, 0.9, 20, dtype=np.float32)
    drawn = [decode(encode(vector, bits, random), 20, bits) for _ in range(4000)]
    step = 2.0 if bits == 1 else 1 / ((1 << (bits - 1)) - 1)
    # Five standard errors of a mean of 4000, each uniform over a step at worst.
    np.testing.assert_allclose(np.mean(drawn, axis=0), vector, atol=5 * step / 2 / 4000**0.5)


@given(vectors, widths, st.integers(0, 2**32))
def test_a_fitted_scale_leaves_no_more_than_there_was(
    vector: np.ndarray, bits: int, seed: int
) -> None:
    encoded = encode(vector, bits, np.random.default_rng(seed))
    before, after = (
        np.linalg.norm(vector - decode(one, len(vector), bits).astype(np.float64))
        for one in (encoded, fitted(encoded, vector, bits))
    )
    assert after <= min(before, np.linalg.norm(vector.astype(np.float64))) * (1 + 1e-3) + 1e-4


@pytest.mark.parametrize("bits", [8, 2, 1])
def test_what_was_rounded_to_the_other_side_is_not_said(bits: int) -> None:
    vector = np.array([1, -1, 0.5], np.float32)
    opposite = encode(-vector, bits)
    assert fitted(opposite, vector, bits) == encode(np.zeros(3, np.float32), bits)


@pytest.mark.parametrize("bits", [16, 32])
def test_floats_have_no_scale(bits: int) -> None:
    data = encode(np.ones(3, np.float32), bits).data
    with pytest.raises(CodecError, match="scale"):
        decode(Encoded(data, 1.0), 3, bits)


def test_a_magnitude_too_small_for_a_scale_is_zero() -> None:
    assert encode(np.array([1e-44], np.float32), 8) == Encoded(b"\0", 0.0)


@given(vectors, widths)
def test_the_length_follows_from_count_and_width_alone(vector: np.ndarray, bits: int) -> None:
    assert len(encode(vector, bits).data) == encoded_length(len(vector), bits)
    assert encoded_length(len(vector), bits) == -(-len(vector) * bits // 8)


@given(vectors, widths)
def test_a_decoded_vector_has_the_encoding_that_it_came_from(vector: np.ndarray, bits: int) -> None:
    encoded = encode(vector, bits)
    again = encode(decode(encoded, len(vector), bits), bits)
    assert again == encoded


@given(st.binary(max_size=70), st.floats(width=32), st.integers(0, 60), widths)
def test_random_bytes_decode_to_finite_numbers_or_are_refused(
    data: bytes, scale: float, count: int, bits: int
) -> None:
    try:
        vector = decode(Encoded(data, scale), count, bits)
    except CodecError:
        return
    assert vector.shape == (count,)
    assert np.isfinite(vector).all()


@given(st.data(), st.integers(1, 60), widths)
def test_bytes_of_the_right_length_never_break_the_decoder(
    data: st.DataObject, count: int, bits: int
) -> None:
    length = encoded_length(count, bits)
    body = data.draw(st.binary(min_size=length, max_size=length))
    scale = data.draw(st.floats(0, 2.0**126, width=32))
    try:
        vector = decode(Encoded(body, scale), count, bits)
    except CodecError:
        return
    assert np.isfinite(vector).all()
    if bits >= 16:
        assert encode(vector, bits).data == body


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_encoded(wrong: float, bits: int) -> None:
    with pytest.raises(CodecError, match="NaN or infinity"):
        encode(np.array([0.5, wrong], np.float32), bits)


@pytest.mark.parametrize("bits", [8, 5, 1])
@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
def test_a_scale_that_is_no_magnitude_is_refused(scale: float, bits: int) -> None:
    data = encode(np.ones(3, np.float32), bits).data
    with pytest.raises(CodecError, match="scale"):
        decode(Encoded(data, scale), 3, bits)


@pytest.mark.parametrize("bits", [16, 32])
def test_floats_that_are_not_finite_are_refused(bits: int) -> None:
    data = np.array([np.nan, 1], f"<f{bits // 8}").tobytes()
    with pytest.raises(CodecError, match="NaN or infinity"):
        decode(Encoded(data, 0.0), 2, bits)


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_byte_too_few_or_too_many_is_refused(bits: int) -> None:
    encoded = encode(np.ones(9, np.float32), bits)
    for data in (encoded.data[:-1], encoded.data + b"\0"):
        with pytest.raises(CodecError, match="expected"):
            decode(Encoded(data, encoded.scale), 9, bits)


def test_set_padding_bits_are_refused() -> None:
    encoded = encode(np.array([1, -1, 1], np.float32), 5)
    body = encoded.data[:-1] + bytes([encoded.data[-1] | 1])
    with pytest.raises(CodecError, match="padding"):
        decode(Encoded(body, encoded.scale), 3, 5)


def test_the_level_beyond_the_limit_is_refused() -> None:
    with pytest.raises(CodecError, match="level"):
        decode(Encoded(b"\xff", 1.0), 1, 8)


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_zero_vector_is_zero_bytes(bits: int) -> None:
    encoded = encode(np.zeros(7, np.float32), bits)
    assert encoded == Encoded(bytes(encoded_length(7, bits)), 0.0)
    assert not decode(encoded, 7, bits).any()


def test_packing_is_most_significant_bit_first() -> None:
    # Levels of [1, -1, 0] at 3 bits: 3 + (3, -3, 0) = 110 000 011, padded with seven zeros.
    assert encode(np.array([1, -1, 0], np.float32), 3).data == bytes([0b11000001, 0b10000000])


@pytest.mark.parametrize("bits", [0, 9, 15, 33, -1])
def test_another_width_is_refused(bits: int) -> None:
    with pytest.raises(RecastError, match="choose one of"):
        check_bits(bits)


def test_an_offset_beyond_float16_is_refused_at_16_bits() -> None:
    with pytest.raises(CodecError, match="send 32"):
        encode(np.array([7e4], np.float32), 16)
