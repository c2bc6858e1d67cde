"""Packed templates: exact in any order of summation, whole in file and message, or refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from client.bank_cache import BankCache
from recast_core import RecastError, TemplateBank, attach
from recast_core.bank import PackedGroup
from recast_core.packed import BITS, Packed, packed_bytes, refold, unfold, unfolded

PINNED = "7c8ad789ebe72c0b82623cc694715bdb7de0271e5fe37f49e9f2096148c561ce"


def integers(seed: int, bits: int, *shape: int) -> np.ndarray:
    most = 2 ** (bits - 1) - 1
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype(np.int16)


def factors(size: tuple[int, ...], bits: int, rank: int, seed: int = 0) -> Packed:
    rows, columns = unfolded(size)
    multipliers = np.random.default_rng(seed).integers(0, 65536, rank).astype(np.uint16)
    return Packed.factors(
        size,
        bits,
        multipliers,
        integers(seed, bits, rows, rank),
        integers(seed + 1, bits, columns, rank),
        3e-7,
    )


def packed_bank() -> TemplateBank:
    weight = factors((2, 4, 3, 3, 3), 4, 3)
    bias = Packed.direct(integers(7, 8, 2, 4), torch.tensor([0.5, 1e-3]), 8)
    return TemplateBank(
        groups=(
            PackedGroup("0.weight", ("0",), "weight", (0,), weight),
            PackedGroup("0.bias", ("0",), "bias", (0,), bias),
        ),
        initial=(torch.zeros(2),),
        residual=True,
    )


@given(
    st.sampled_from(list(BITS)),
    st.integers(1, 5),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_direct_integers_come_back(bits: int, count: int, shape: list[int]) -> None:
    whole = integers(0, bits, count, *shape)
    scales = torch.rand(count) + 0.1
    packed = Packed.direct(whole, scales, bits)
    expected = whole * scales.numpy().reshape(-1, *[1] * len(shape))
    assert np.array_equal(packed.templates().numpy(), expected.astype(np.float32))
    assert len(packed.content) == -(-whole.size * bits // 8)


@pytest.mark.parametrize("size", [(3, 4, 5), (3, 5, 4), (2, 4, 3, 3, 3), (12, 64, 64, 3, 3)])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_factors_are_whole_numbers_times_one_scale(size: tuple[int, ...], bits: int) -> None:
    rank = 4
    packed = factors(size, bits, rank)
    rows, columns = unfolded(size)
    left, right = integers(0, bits, rows, rank), integers(1, bits, columns, rank)
    multipliers = np.random.default_rng(0).integers(0, 65536, rank)
    exact = np.einsum("r,ar,br->ab", multipliers, left.astype(np.int64), right.astype(np.int64))
    scaled = (exact.astype(np.float64) * float(np.float32(3e-7))).astype(np.float32)
    assert torch.equal(packed.templates(), refold(torch.from_numpy(scaled), size))


def test_no_order_of_summation_changes_a_bit() -> None:
    size, bits, rank = (12, 32, 32, 3, 3), 8, 64
    rows, columns = unfolded(size)
    left, right = integers(0, bits, rows, rank), integers(1, bits, columns, rank)
    multipliers = np.random.default_rng(0).integers(0, 65536, rank).astype(np.uint16)

    def made(order: np.ndarray) -> torch.Tensor:
        parts = multipliers[order], left[:, order], right[:, order]
        return Packed.factors(size, bits, *parts, 1e-9).templates()

    first = made(np.arange(rank))
    for seed in range(3):
        assert torch.equal(made(np.random.default_rng(seed).permutation(rank)), first)
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        assert torch.equal(made(np.arange(rank)), first)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [(3, 4, 5), (3, 5, 4), (2, 4, 3, 3, 3), (2, 9, 2, 2, 2)])
def test_unfolding_is_undone(size: tuple[int, ...]) -> None:
    stack = torch.randn(size)
    assert unfold(stack).shape == unfolded(size)
    assert torch.equal(refold(unfold(stack), size), stack)


def test_templates_live_only_as_long_as_someone_holds_them() -> None:
    packed = factors((2, 4, 3, 3, 3), 4, 3)
    held = packed.templates()
    assert packed.templates() is held
    del held
    assert packed._live[0]() is None  # the memory is free again
    assert torch.equal(packed.templates(), factors((2, 4, 3, 3, 3), 4, 3).templates())


def test_the_identity_of_a_known_packed_bank_is_pinned() -> None:
    assert packed_bank().sha256.hex() == PINNED


def test_the_identity_is_the_hash_of_header_integers_and_scales() -> None:
    bank = packed_bank()
    header = bank.header()
    assert header["format"] == "recast.bank/2"
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    digest.update(b"\0" + np.zeros(2, "<f4").tobytes())
    for group in bank.groups:
        assert isinstance(group, PackedGroup)
        digest.update(group.packed.content + group.packed.scales.numpy().astype("<f4").tobytes())
    assert bank.sha256 == digest.digest()


def test_every_integer_and_scale_enters_the_identity() -> None:
    bank = packed_bank()
    group = bank.groups[0]
    assert isinstance(group, PackedGroup)
    content = bytes([group.packed.content[0] ^ 1]) + group.packed.content[1:]
    for packed in (
        replace(group.packed, content=content),
        replace(group.packed, scales=group.packed.scales * 2),
    ):
        other = replace(bank, groups=(replace(group, packed=packed), bank.groups[1]))
        assert other.sha256 != bank.sha256


def test_a_packed_bank_survives_file_and_cache_bit_for_bit(tmp_path: Path) -> None:
    bank = packed_bank()
    content = bank.to_bytes()
    assert content == packed_bank().to_bytes()
    back = TemplateBank.from_bytes(content)
    assert back.sha256 == bank.sha256
    assert back.to_bytes() == content
    for one, other in zip(back.groups, bank.groups, strict=True):
        assert torch.equal(one.templates, other.templates)
    cache = BankCache(tmp_path)
    cache.store(content, bank.sha256)
    assert cache.holds(bank.sha256)


def test_an_attached_model_moves_along_the_templates() -> None:
    bank = packed_bank()
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    weight, bias = (p.detach().clone() for p in model[0].parameters())
    net = attach(model, bank)
    net.coefficients.load(torch.tensor([2.0, -1.0]))
    merged = net.merge()
    moved, moved_bias = (g.templates[0] * 2 - g.templates[1] for g in bank.groups)
    conv = merged[0]  # type: ignore[index]  # nn.Module
    torch.testing.assert_close(conv.weight, weight + moved)
    torch.testing.assert_close(conv.bias, bias + moved_bias)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bytes_are_refused_or_give_another_identity(flips: list[tuple[int, int]]) -> None:
    bank = packed_bank()
    content = bytearray(bank.to_bytes())
    for place, mask in flips:
        content[place % len(content)] ^= mask
    try:
        back = TemplateBank.from_bytes(bytes(content))
    except RecastError:
        return
    if back.sha256 == bank.sha256:
        assert all(
            torch.equal(one.templates, other.templates)
            for one, other in zip(back.groups, bank.groups, strict=True)
        )


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("shape", [2, 4, 3, 3]),
        ("shape", [2, 4, 3, 3, 4]),
        ("shape", [2, -4, 3, 3, 3]),
        ("shape", [1 << 40, 1 << 40, 3]),
        ("shape", [2, 4.0, 3, 3, 3]),
        ("shape", []),
        ("rank", 4),
        ("rank", -3),
        ("rank", True),
        ("rank", 1 << 40),
        ("bits", 1),
        ("bits", 9),
        ("bits", 3),
        ("bits", None),
    ],
)
def test_a_header_that_does_not_fit_is_one_line_and_allocates_nothing(
    change: str, value: object
) -> None:
    content = packed_bank().to_bytes()
    tensors = safetensors.torch.load(content)
    length = int.from_bytes(content[:8], "little")
    parts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["recast.bank"])
    parts["header"]["groups"][0][change] = value
    lying = safetensors.torch.save(tensors, {"recast.bank": json.dumps(parts)})
    with pytest.raises(RecastError) as refused:
        TemplateBank.from_bytes(lying)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1e-3, 1e-40, 1e30])
def test_a_scale_that_machines_might_read_differently_is_refused(scale: float) -> None:
    with pytest.raises(RecastError, match="scale"):
        Packed.direct(integers(0, 4, 1, 3), torch.tensor([scale]), 4)


def test_content_of_another_length_is_refused() -> None:
    whole = factors((2, 4, 3, 3, 3), 4, 3)
    assert len(whole.content) == packed_bytes(whole.size, 4, 3)
    for content in (whole.content[:-1], whole.content + b"\0", b""):
        with pytest.raises(RecastError, match="bytes"):
            replace(whole, content=content)


@pytest.mark.parametrize("depth", [5_000, 100_000])
def test_a_header_nested_beyond_all_depth_is_one_line(depth: int) -> None:
    tensors = safetensors.torch.load(packed_bank().to_bytes())
    nested = safetensors.torch.save(tensors, {"recast.bank": "[" * depth + "]" * depth})
    with pytest.raises(RecastError, match=r"^\w+ is no bank or is corrupt [^\n]*$"):
        TemplateBank.from_bytes(nested)
