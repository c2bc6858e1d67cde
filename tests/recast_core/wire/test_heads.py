"""Heads as bytes: one length, the same head on the other side, and nothing else is taken."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recast_core.heads import head_kind
from recast_core.wire.heads import (
    TRAVELLING,
    pack_head,
    pack_statistics,
    statistics_length,
    unpack_head,
    unpack_statistics,
)
from recast_core.wire.messages import RefusedError

WIDTH = 6


def statistics(kind: str, classes: int, labels: torch.Tensor) -> bytes:
    features = torch.randn(len(labels), WIDTH, generator=torch.Generator().manual_seed(0))
    return pack_statistics(kind, head_kind(kind).statistics(features, labels, classes), classes)


def some_labels(classes: int) -> torch.Tensor:
    return torch.arange(3 * classes) % max(2, classes - 1)


@pytest.mark.parametrize("kind", TRAVELLING)
@given(classes=st.integers(3, 40))
@settings(max_examples=15, deadline=None)
def test_statistics_have_the_announced_length_and_come_back_byte_for_byte(
    kind: str, classes: int
) -> None:
    labels = some_labels(classes)
    content = statistics(kind, classes, labels)
    assert len(content) == statistics_length(kind, classes, WIDTH, len(labels.unique()))
    found = unpack_statistics(kind, content, classes, WIDTH)
    assert pack_statistics(kind, found, classes) == content
    assert found["classes"].tolist() == labels.unique().tolist()


@pytest.mark.parametrize("kind", TRAVELLING)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_is_not_statistics_is_refused_with_a_reason(
    kind: str, data: st.DataObject
) -> None:
    content = statistics(kind, 5, some_labels(5))
    cut = data.draw(st.integers(0, len(content) - 1))
    for wrong in (content[:cut], content + b"\0", data.draw(st.binary(max_size=200))):
        with pytest.raises(RefusedError):
            unpack_statistics(kind, wrong, 5, WIDTH)


@pytest.mark.parametrize("kind", TRAVELLING)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=120, deadline=None)
def test_a_flipped_bit_is_refused_or_leaves_statistics_that_a_server_can_merge(
    kind: str, place: int, bit: int
) -> None:
    content = bytearray(statistics(kind, 5, some_labels(5)))
    content[place % len(content)] ^= 1 << bit
    try:
        found = unpack_statistics(kind, bytes(content), 5, WIDTH)
    except RefusedError:
        return
    merged = head_kind(kind).merge([found], 5)
    assert torch.isfinite(merged.weight).all()


@given(classes=st.integers(2, 30), scale=st.sampled_from([1e-6, 1.0, 1e4]))
@settings(max_examples=30, deadline=None)
def test_a_head_comes_back_within_the_rounding_of_eleven_bits(classes: int, scale: float) -> None:
    head = nn.Linear(WIDTH, classes)
    nn.init.normal_(head.weight, std=scale)
    content = pack_head(head, "means")
    back = unpack_head(content, "means")
    widest = head.weight.detach().abs().max()
    assert (back.weight - head.weight).abs().max() <= widest * 2**-11
    assert torch.equal(back.bias, head.bias)
    assert pack_head(back, "means") == content
    for cut in range(len(content)):
        with pytest.raises(RefusedError):
            unpack_head(content[:cut], "means")


def test_numbers_that_are_not_finite_are_refused() -> None:
    head = nn.Linear(WIDTH, 3)
    content = bytearray(pack_head(head, "ridge"))
    content[-4:] = b"\x00\x00\xc0\x7f"
    with pytest.raises(RefusedError) as caught:
        unpack_head(bytes(content), "ridge")
    assert caught.value.reason == "not-finite"
