"""Heads as bytes: one length, the same head on the other side, and nothing else is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from recast_core.errors import RecastError
from recast_core.heads import Means, head_kind, head_names, register_head, table
from recast_core.wire.head_bytes import (
    code_of,
    kind_of,
    pack_head,
    pack_statistics,
    statistics_length,
    unpack_head,
    unpack_statistics,
)
from recast_core.wire.messages import RefusedError
from tests.examples import examples

TRAVELLING = [name for name in head_names() if head_kind(name).travels]
WIDTH = 6


def statistics(kind: str, classes: int, labels: torch.Tensor) -> bytes:
    features = torch.randn(len(labels), WIDTH, generator=torch.Generator().manual_seed(0))
    return pack_statistics(kind, head_kind(kind).statistics(features, labels, classes), classes)


def some_labels(classes: int) -> torch.Tensor:
    return torch.arange(3 * classes) % max(2, classes - 1)


@pytest.mark.parametrize("kind", TRAVELLING)
@given(classes=st.integers(3, 40))
@examples(15)
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
@examples(120)
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
@examples(30)
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


@pytest.mark.parametrize("change", ["scales", "gram"])
def test_numbers_that_no_client_can_have_found_are_refused_by_the_kind(change: str) -> None:
    kind = "means" if change == "scales" else "ridge"
    labels = some_labels(5)
    features = torch.randn(len(labels), WIDTH, generator=torch.Generator().manual_seed(0))
    told = dict(head_kind(kind).statistics(features, labels, 5))
    told[change] = -told[change]
    with pytest.raises(RefusedError) as caught:
        unpack_statistics(kind, pack_statistics(kind, told, 5), 5, WIDTH)
    assert caught.value.reason == "out-of-range"


def test_a_kind_that_is_registered_has_a_name_and_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "_KINDS", dict(table._KINDS))

    @dataclass(frozen=True)
    class Coarse(Means):
        name: ClassVar[str] = "coarse"
        code: ClassVar[int] = 200

    register_head(Coarse)
    register_head(Coarse)  # as a module that is loaded again does
    content = statistics("coarse", 5, some_labels(5))
    assert content[1] == 200
    assert kind_of(code_of("coarse")) == "coarse"
    with pytest.raises(RefusedError, match="a head of kind 200 in the place of 1"):
        unpack_statistics("means", content, 5, WIDTH)

    for wrong, why in (("code", "cannot be told apart"), ("name", "cannot be told apart")):
        same = {"code": Means.code} if wrong == "code" else {"name": Means.name}
        other = type("Other", (Means,), {"name": "other", "code": 201} | same)
        with pytest.raises(RecastError, match=why):
            register_head(other)
    with pytest.raises(RecastError, match="give one from 128 to 255"):
        register_head(type("Wide", (Means,), {"name": "wide", "code": 256}))
    with pytest.raises(RefusedError, match="no kind of head has the number 99"):
        kind_of(99)
