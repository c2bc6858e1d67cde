"""A loss in 14 bits comes back to half a per cent, with its sign, in two bytes of a varint."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import recast_v1_pb2 as pb
from recast_core.settings import LOSS
from recast_core.wire.loss import pack_loss, unpack_loss
from recast_core.wire.messages import RefusedError


@given(st.floats(1e-4, 6e4) | st.floats(-6e4, -1e-4))
def test_what_is_packed_comes_back(loss: float) -> None:
    packed = pack_loss(loss)
    assert unpack_loss(packed) == pytest.approx(loss, rel=5e-3)
    assert 2 <= pb.Update(loss=packed).ByteSize() <= LOSS


@pytest.mark.parametrize("none", [0.0, -0.0, 1e-9, math.nan, math.inf, -math.inf])
def test_no_loss_takes_no_byte(none: float) -> None:
    packed = pack_loss(none)
    assert pb.Update(loss=packed).ByteSize() == 0
    assert unpack_loss(packed) is None


def test_every_number_is_a_finite_loss_or_refused() -> None:
    found = [unpack_loss(packed) for packed in (0, *range(2, 0x3E00))]
    assert found[0] is None
    assert all(loss is not None and math.isfinite(loss) for loss in found[1:])
    for packed in (1, 0x3E00, 1 << 14, 2**32 - 1):
        with pytest.raises(RefusedError, match="a loss written as"):
            unpack_loss(packed)


def test_what_is_too_large_is_the_largest() -> None:
    assert unpack_loss(pack_loss(1e30)) == unpack_loss(pack_loss(65_000.0))
    assert unpack_loss(pack_loss(-1e30)) == -65_024.0
