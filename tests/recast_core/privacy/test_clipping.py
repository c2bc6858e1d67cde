"""No client moves a sum by more than the clip, whatever it sends and however it was rounded."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recast_core.privacy.clipping import bounded, length
from recast_core.wire.codec import WIDTHS, decode, encode

anything = arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)
finite = arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e4, 1e4, width=32))
limits = st.floats(1e-6, 1e6)


def exact(vector: np.ndarray) -> float:
    """The length in extended precision."""
    wide = vector.astype(np.longdouble)
    return np.sqrt((wide**2).sum())  # type: ignore[no-any-return]


@given(anything, limits)
def test_nothing_is_longer_than_the_clip(offsets: np.ndarray, limit: float) -> None:
    assert exact(bounded(offsets, limit)) <= limit


@given(finite, limits)
def test_what_is_short_enough_stays_as_it_is_and_directions_stay(
    offsets: np.ndarray, limit: float
) -> None:
    clipped, norm = bounded(offsets, limit), length(offsets)
    if norm <= limit:
        np.testing.assert_array_equal(clipped, offsets)
    else:
        np.testing.assert_allclose(clipped * norm, offsets * limit, rtol=1e-6, atol=1e-30)


@given(finite, limits, st.sampled_from(WIDTHS))
def test_rounding_a_clipped_update_may_lengthen_it_and_the_server_bounds_it_again(
    offsets: np.ndarray, limit: float, bits: int
) -> None:
    sent = bounded(offsets, min(limit, 6e4)).astype(np.float32)
    received = decode(encode(sent, bits), len(sent), bits)
    assert exact(bounded(received, limit)) <= limit


def test_rounding_alone_would_break_the_bound() -> None:
    sent = bounded(np.linspace(0.4, 1, 48, dtype=np.float32), 1.0).astype(np.float32)
    lengths = [length(decode(encode(sent, bits), 48, bits)) for bits in (5, 4, 3, 2, 1)]
    assert max(lengths) > 1.01


@given(finite, finite, limits)
def test_any_client_moves_the_sum_by_no_more_than_the_clip(
    mine: np.ndarray, theirs: np.ndarray, limit: float
) -> None:
    size = min(len(mine), len(theirs))
    others = bounded(theirs[:size], limit)
    moved = (others + bounded(mine[:size], limit)) - others
    assert length(moved) <= limit * (1 + 1e-9)
