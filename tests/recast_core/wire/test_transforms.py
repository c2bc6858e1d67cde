"""The chain from what a client trained to its update."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.settings import Settings
from recast_core.wire import transforms
from recast_core.wire.codec import WIDTHS, Encoded, Vector, decode, encode
from recast_core.wire.messages import Hyperparameters, RefusedError, hyperparameters
from recast_core.wire.transforms import (
    Occasion,
    Rest,
    Unsaid,
    chain,
    register_transform,
    round_update,
)

D = 6
vectors = arrays(np.float32, D, elements=st.floats(-10, 10, width=32))


class Kept:
    """What was left unsaid, in memory."""

    def __init__(self, residual: Vector | None = None) -> None:
        self.residual = residual

    def applicable(self, broadcast: pb.Broadcast, count: int) -> Vector | None:
        return self.residual

    def keep(self, broadcast: pb.Broadcast, before: Vector | None, after: Vector) -> None:
        self.residual = after


def update(offsets: Vector, spec: str, bits: int = 8, unsaid: Unsaid | None = None) -> Vector:
    hyper = Hyperparameters(bits=bits, transforms=spec)
    return decode(round_update(offsets, unsaid, pb.Broadcast(), hyper, 0), len(offsets), bits)


@given(vectors, st.sampled_from(WIDTHS))
def test_without_any_the_update_is_what_the_codec_makes_of_the_offsets(
    offsets: Vector, bits: int
) -> None:
    hyper = Hyperparameters(bits=bits)
    assert round_update(offsets, None, pb.Broadcast(), hyper, 0) == encode(offsets, bits)


@given(vectors)
def test_a_clipped_update_is_no_longer_than_the_limit_and_points_the_same_way(
    offsets: Vector,
) -> None:
    clipped = update(offsets, "clip:0.5", bits=32)
    length = float(np.linalg.norm(offsets))
    np.testing.assert_allclose(clipped, offsets * min(1.0, 0.5 / max(length, 1e-9)), atol=1e-6)


def test_error_feedback_adds_its_share_where_the_chain_says() -> None:
    offsets, left = np.full(D, 1.0, np.float32), np.full(D, 3.0, np.float32)
    # Clipped first, what was left is added whole; clipped last, the sum is as short as the rest.
    late = update(offsets, "clip:0.5", 32, Kept(left))
    early = update(offsets, "error-feedback, clip:0.5", 32, Kept(left))
    assert float(np.linalg.norm(late)) > 5
    assert float(np.linalg.norm(early)) == pytest.approx(0.5, rel=1e-5)


def test_what_later_transforms_took_is_left_unsaid_too() -> None:
    kept = Kept()
    said = update(np.full(D, 1.0, np.float32), "error-feedback clip:0.5", 32, kept)
    assert kept.residual is not None
    np.testing.assert_allclose(kept.residual + said, 1.0, atol=1e-6)


def test_one_that_is_registered_takes_part_with_its_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transforms, "_MAKERS", dict(transforms._MAKERS))

    def make_times(argument: str) -> transforms.Transform:
        def times(offsets: Vector, occasion: Occasion, rest: Rest) -> Encoded:
            return rest(offsets * np.float32(argument))

        return times

    register_transform("times", make_times)
    register_transform("times", make_times)  # as a module that is loaded again does
    with pytest.raises(RecastError, match="'times' is registered already"):
        register_transform("times", lambda argument: make_times("1"))
    offsets = np.arange(D, dtype=np.float32)
    np.testing.assert_array_equal(update(offsets, "times:3", 32), 3 * offsets)
    # In the order of the specification.
    shorter = float(np.linalg.norm(update(offsets, "clip:1 times:3", 32)))
    assert shorter == pytest.approx(3, rel=1e-5)
    longer = float(np.linalg.norm(update(offsets, "times:3 clip:1", 32)))
    assert longer == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("clap:1", r"unknown transform 'clap': choose .*clip.* \(did you mean clip\?\)"),
        ("clip", "cannot clip to '': give a length"),
        ("clip:-1", "cannot clip to '-1'"),
        ("clip:1 clip:2", "name clip twice"),
        ("round clip:1", "nothing can come after round"),
        ("round:2", "round takes no argument"),
    ],
)
def test_a_chain_that_cannot_be_is_refused_on_both_sides(spec: str, why: str) -> None:
    with pytest.raises(RecastError, match=why):
        Settings(transforms=spec)
    told = pb.Hyperparameters(epochs=1, batch=1, learning_rate=0.1, bits=8, transforms=spec)
    with pytest.raises(RefusedError, match=why) as refused:
        hyperparameters(pb.Broadcast(hyperparameters=told))
    assert refused.value.reason == "malformed"


def test_the_names_travel_with_the_broadcast_and_cost_nothing_where_there_are_none() -> None:
    assert Settings(transforms="clip:1").hyperparameters().transforms == "clip:1"
    told = pb.Hyperparameters(epochs=1, batch=1, learning_rate=0.1, bits=8)
    size = told.ByteSize()
    told.transforms = ""
    assert told.ByteSize() == size
    assert chain("") == chain("round") == chain("error-feedback, round")
