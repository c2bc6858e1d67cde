"""Local noise is added to a bounded update, before rounding, by whoever it hides."""

from __future__ import annotations

import numpy as np
import pytest

from protos import recast_v1_pb2 as pb
from recast_core.privacy.noise import Noise, seeded_noise
from recast_core.wire.codec import CodecError, Vector, decode
from recast_core.wire.gaussian import gaussian, has_noise
from recast_core.wire.messages import Hyperparameters
from recast_core.wire.transforms import round_update

LONG = np.full(16, 50.0, np.float32)


def sent(offsets: Vector, transforms: str, noise: Noise | None, bits: int = 32) -> Vector:
    hyper = Hyperparameters(bits=bits, transforms=transforms)
    return decode(round_update(offsets, None, pb.Broadcast(), hyper, 5, noise), 16, bits)


def test_an_update_is_clipped_then_noisy_then_rounded() -> None:
    noise = seeded_noise(1)(16)
    found = sent(LONG, gaussian(2.0, 0.5), lambda count: noise)
    np.testing.assert_allclose(found, 0.5 + 0.5 * noise, rtol=1e-5)
    coarse = sent(LONG, gaussian(2.0, 0.5), lambda count: noise, bits=4)
    assert len(np.unique(coarse)) <= 15


def test_two_clients_differ_by_no_more_than_two_clips_whatever_they_have() -> None:
    for other in (-LONG, np.zeros(16, np.float32), np.full(16, np.float32(3e38))):
        noise = seeded_noise(1)(16)
        apart = sent(LONG, gaussian(2.0, 0.5), lambda count, noise=noise: noise) - sent(
            other, gaussian(2.0, 0.5), lambda count, noise=noise: noise
        )
        assert np.linalg.norm(apart) <= 4.0 + 1e-5


def test_noise_is_the_systems_own_unless_it_is_handed_in() -> None:
    one, two = (sent(LONG, gaussian(2.0, 0.5), None) for _ in range(2))
    assert not np.array_equal(one, two)


def test_other_transforms_come_before_it_and_nan_is_refused() -> None:
    noise = seeded_noise(1)(16)
    found = sent(LONG, "clip:0.4 " + gaussian(2.0, 0.5), lambda count: noise)
    np.testing.assert_allclose(found, 0.1 + 0.5 * noise, rtol=1e-4)
    with pytest.raises(CodecError, match="NaN"):
        sent(np.full(16, np.nan, np.float32), gaussian(2.0, 0.5), None)
    assert has_noise("clip:1 gaussian:1:2")
    assert not has_noise("clip:1")
