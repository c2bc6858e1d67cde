"""A client's banks: named by their identity, whole or absent, and never taken for another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.bank_cache import BankCache
from recast_core import RecastError, TemplateBank, TemplateGroup


def bank(seed: int = 0) -> TemplateBank:
    templates = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
    group = TemplateGroup("g", ("m",), "weight", (0,), templates)
    return TemplateBank((group,), (torch.ones(2),))


BANK = bank()
CONTENT = BANK.to_bytes()


@pytest.fixture
def cache(tmp_path: Path) -> BankCache:
    return BankCache(tmp_path / "banks")


def test_a_stored_bank_is_the_file_named_by_its_sha256(cache: BankCache) -> None:
    assert not cache.holds(BANK.sha256)
    assert cache.find(BANK.prefix) is None
    path = cache.store(CONTENT, BANK.sha256)
    assert path == cache.folder / f"{BANK.sha256.hex()}.safetensors"
    assert path.read_bytes() == CONTENT
    assert cache.holds(BANK.sha256)
    assert cache.find(BANK.prefix) == path
    assert list(cache.folder.iterdir()) == [path]


def test_banks_live_beside_one_another(cache: BankCache) -> None:
    for seed in (0, 1):
        cache.store(bank(seed).to_bytes(), bank(seed).sha256)
    assert all(cache.holds(bank(seed).sha256) for seed in (0, 1))
    assert not cache.holds(bank(2).sha256)
    assert cache.find(bank(2).prefix) is None


@pytest.mark.parametrize("content", [b"", b"garbage", CONTENT[:-1], bank(1).to_bytes()])
def test_what_is_not_the_announced_bank_is_not_kept(cache: BankCache, content: bytes) -> None:
    with pytest.raises(RecastError):
        cache.store(content, BANK.sha256)
    assert not cache.folder.exists() or not list(cache.folder.iterdir())


@given(at=st.integers(0, len(CONTENT) - 1), flip=st.integers(1, 255))
def test_a_damaged_file_counts_as_absent_and_is_removed(
    tmp_path_factory: pytest.TempPathFactory, at: int, flip: int
) -> None:
    cache = BankCache(tmp_path_factory.mktemp("banks"))
    path = cache.store(CONTENT, BANK.sha256)
    damaged = bytearray(CONTENT)
    damaged[at] ^= flip
    path.write_bytes(damaged)
    # A flip in the header's own white space or meta leaves the function what it was.
    if not cache.holds(BANK.sha256):
        assert not path.exists()
        cache.store(CONTENT, BANK.sha256)
    assert TemplateBank.load(path, BANK.sha256).sha256 == BANK.sha256


def test_a_flipped_number_counts_as_absent(cache: BankCache) -> None:
    path = cache.store(CONTENT, BANK.sha256)
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    assert not cache.holds(BANK.sha256)
    assert not path.exists()


@pytest.mark.parametrize("sha256", [b"", b"short", BANK.sha256 + b"x", bytes(5000)])
def test_what_is_no_sha256_is_not_held(cache: BankCache, sha256: bytes) -> None:
    cache.store(CONTENT, BANK.sha256)
    assert not cache.holds(sha256)
