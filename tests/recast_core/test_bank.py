"""The bank: one identity, an exact file, and nothing but RecastError for what is not a bank."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from recast_core import RecastConfig, RecastError, TemplateBank, TemplateGroup, mimic
from recast_core.bank_file import pack
from recast_core.files import write_atomically

PINNED = "36a3f6e69c66bb3f88edf8931ce1a50b7ee6a3e860c8f938f7025b90a895c554"


def tiny_bank(residual: bool = False, meta: dict[str, str] | None = None) -> TemplateBank:
    first = torch.tensor([[[1.0, -2.0], [0.5, 0.1]], [[3.0, 4.0], [1e-3, 7.0]]])
    second = torch.tensor([[0.25, 8.0, -1.0]])
    base = torch.tensor([[1.0, 2.0, 3.0]]) if residual else None
    return TemplateBank(
        groups=(
            TemplateGroup("a", ("x.0", "x.1"), "weight", (0, 1), first),
            TemplateGroup("b", ("y",), "weight", (2,), second, base),
        ),
        initial=(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([0.3])),
        sets=2,
        residual=residual,
        backbone="0123456789abcdef",
        meta=meta or {},
    )


def same_tensors(one: TemplateBank, other: TemplateBank) -> bool:
    return all(
        name == other_name and torch.equal(a, b)
        for (name, a), (other_name, b) in zip(one.tensors(), other.tensors(), strict=True)
    )


def test_the_identity_of_a_known_bank_is_pinned() -> None:
    assert tiny_bank().sha256.hex() == PINNED
    assert tiny_bank().prefix == int(PINNED[:8], 16)


def test_the_identity_is_the_hash_of_the_documented_form() -> None:
    header = {
        "backbone": "0123456789abcdef",
        "format": "recast.bank/1",
        "groups": [
            {
                "base": False,
                "modules": ["x.0", "x.1"],
                "name": "a",
                "rows": [0, 1],
                "shape": [2, 2, 2],
                "tensor": "weight",
            },
            {
                "base": False,
                "modules": ["y"],
                "name": "b",
                "rows": [2],
                "shape": [1, 3],
                "tensor": "weight",
            },
        ],
        "initial": [2, 2, 1],
        "residual": False,
        "sets": 2,
    }
    text = json.dumps(header, separators=(",", ":"))
    numbers = [1, 0, 0, 1, 0.3, 1, -2, 0.5, 0.1, 3, 4, 1e-3, 7, 0.25, 8, -1]
    form = text.encode() + b"\0" + struct.pack(f"<{len(numbers)}f", *numbers)
    assert tiny_bank().sha256 == hashlib.sha256(form).digest()


def test_meta_and_memory_layout_do_not_enter_the_identity() -> None:
    bank = tiny_bank(meta={"source": "closed-form"})
    assert bank.sha256.hex() == PINNED
    group = bank.groups[0]
    strided = group.templates.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    changed = replace(bank, groups=(replace(group, templates=strided), bank.groups[1]))
    assert changed.sha256.hex() == PINNED


def test_a_model_that_moved_or_trained_its_head_gives_the_same_identity() -> None:
    def made(change: Callable[[nn.Sequential], object]) -> bytes:
        torch.manual_seed(0)
        model = nn.Sequential()
        model.add_module("a", nn.Linear(3, 3))
        model.add_module("fc", nn.Linear(3, 2))
        change(model)
        return mimic(model, RecastConfig(target=("a",))).sha256

    plain = made(lambda model: None)
    assert made(lambda model: model.to(torch.device("cpu")).train()) == plain
    assert made(lambda model: nn.init.zeros_(model.get_submodule("fc").weight)) == plain  # type: ignore[arg-type]
    assert made(lambda model: nn.init.ones_(model.get_submodule("a").weight)) != plain  # type: ignore[arg-type]


changes: dict[str, Callable[[TemplateBank], TemplateBank]] = {
    "sets": lambda bank: replace(bank, sets=3),
    "residual": lambda bank: replace(bank, residual=True),
    "backbone": lambda bank: replace(bank, backbone=""),
    "name": lambda bank: with_group(bank, name="c"),
    "modules": lambda bank: with_group(bank, modules=("x.1", "x.0")),
    "tensor": lambda bank: with_group(bank, tensor="in_proj_weight"),
    "rows": lambda bank: with_group(bank, rows=(1, 0)),
    "rows shared": lambda bank: with_group(bank, rows=(0, 0)),
    "shape": lambda bank: with_group(bank, templates=bank.groups[0].templates.flatten(1)),
    "base": lambda bank: with_group(bank, base=torch.zeros(2, 2, 2)),
}


def with_group(bank: TemplateBank, **changed: object) -> TemplateBank:
    return replace(bank, groups=(replace(bank.groups[0], **changed), bank.groups[1]))  # type: ignore[arg-type]


@pytest.mark.parametrize("what", changes)
def test_every_field_of_the_header_enters_the_identity(what: str) -> None:
    assert changes[what](tiny_bank()).sha256.hex() != PINNED


@given(st.integers(0, 15), st.floats(-100, 100, width=32))
def test_every_number_enters_the_identity(index: int, value: float) -> None:
    bank = tiny_bank()
    tensors = dict(bank.tensors())
    flat = torch.cat([t.reshape(-1) for t in tensors.values()])
    same = flat[index].item() == value
    flat[index] = value
    initial, first, second = (
        part.clone() for part in flat.split([t.numel() for t in tensors.values()])
    )
    changed = replace(
        bank,
        initial=tuple(initial.split([2, 2, 1])),
        groups=(
            replace(bank.groups[0], templates=first.reshape(2, 2, 2)),
            replace(bank.groups[1], templates=second.reshape(1, 3)),
        ),
    )
    assert (changed.sha256 == bank.sha256) == (same and not (value == 0 and str(value) == "-0.0"))


floats = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st.integers(1, 3), st.integers(1, 4), st.booleans(), st.integers(1, 3), st.data())
def test_a_bank_survives_its_file_bit_for_bit(
    n: int, size: int, residual: bool, sets: int, data: st.DataObject
) -> None:
    def tensor(*shape: int) -> Tensor:
        count = int(torch.tensor(shape).prod())
        return torch.tensor(
            data.draw(st.lists(floats, min_size=count, max_size=count)), dtype=torch.float32
        ).reshape(shape)

    bank = TemplateBank(
        groups=(
            TemplateGroup(
                "g",
                ("a", "b"),
                "weight",
                (0, 0),
                tensor(n, size),
                tensor(2, size) if residual else None,
            ),
        ),
        initial=(tensor(n),),
        sets=sets,
        residual=residual,
        backbone="f" * 16,
        meta={"made": "here"},
    )
    content = bank.to_bytes()
    back = TemplateBank.from_bytes(content)
    assert back.sha256 == bank.sha256
    assert back.header() == bank.header()
    assert dict(back.meta) == dict(bank.meta)
    assert same_tensors(back, bank)
    assert back.to_bytes() == content


def test_float16_is_stored_only_where_it_loses_nothing() -> None:
    stored = safetensors.torch.load(tiny_bank().to_bytes())
    assert stored["templates.1"].dtype == torch.float16
    assert stored["templates.0"].dtype == torch.float32, "0.1 is no float16"
    assert stored["initial"].dtype == torch.float32, "0.3 is no float16"
    assert TemplateBank.from_bytes(tiny_bank().to_bytes()).sha256.hex() == PINNED


def test_a_bank_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bank.safetensors"
    tiny_bank(residual=True).save(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    back = TemplateBank.load(path, tiny_bank(residual=True).sha256)
    assert same_tensors(back, tiny_bank(residual=True))


@pytest.mark.parametrize("fails", ["replace", "fsync"])
@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "make room on that disk"), (errno.EACCES, "choose a folder")],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, number: int, remedy: str
) -> None:
    def broken(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "bank.safetensors"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, fails, broken)
    with pytest.raises(RecastError, match=f"{os.strerror(number)}; {remedy}") as caught:
        tiny_bank().save(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RecastError, match="cannot write"):
        write_atomically(tmp_path / "file" / "bank.safetensors", b"x")


def test_another_identity_than_the_one_named_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    tiny_bank().save(path)
    with pytest.raises(RecastError, match="is another bank"):
        TemplateBank.load(path, bytes(32))


def test_a_missing_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(RecastError, match="recast mimic"):
        TemplateBank.load(tmp_path / "none.safetensors")


def refused_or_other(content: bytes) -> None:
    """Only RecastError may be raised, and one identity may have one content only."""
    try:
        bank = TemplateBank.from_bytes(content)
    except RecastError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        return
    if bank.sha256.hex() == PINNED:
        assert same_tensors(bank, tiny_bank())
        assert bank.header() == tiny_bank().header()


CONTENT = tiny_bank().to_bytes()


@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(1, 255)), min_size=1))
def test_flipped_bytes_are_refused_or_give_another_identity(flips: list[tuple[int, int]]) -> None:
    content = bytearray(CONTENT)
    for at, flip in flips:
        content[at] ^= flip
    refused_or_other(bytes(content))


@given(st.integers(0, len(CONTENT) - 1), st.binary(max_size=8))
def test_truncated_and_extended_files_are_refused(length: int, tail: bytes) -> None:
    refused_or_other(CONTENT[:length] + tail)
    with pytest.raises(RecastError):
        TemplateBank.from_bytes(CONTENT[:length])


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(RecastError):
        TemplateBank.from_bytes(content)


def test_a_safetensors_file_that_is_no_bank_is_refused() -> None:
    content = safetensors.torch.save({"weight": torch.zeros(3)}, {"size": "8"})
    with pytest.raises(RecastError, match="no bank"):
        TemplateBank.from_bytes(content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@given(st.data())
def test_a_header_that_lies_is_refused_or_gives_another_identity(data: st.DataObject) -> None:
    bank = tiny_bank()
    header: Any = json.loads(json.dumps(bank.header()))
    spots = [(header, key) for key in header]
    spots += [(group, key) for group in header["groups"] for key in group]
    spots += [(header["groups"], 0), (header["initial"], 1), (header["groups"][0]["rows"], 0)]
    holder, key = data.draw(st.sampled_from(spots))
    holder[key] = data.draw(json_values)
    refused_or_other(pack(bank.tensors(), header, {}))


@given(json_values, json_values)
def test_a_header_or_meta_of_any_other_shape_is_refused(header: object, meta: object) -> None:
    with pytest.raises(RecastError) as caught:
        TemplateBank.from_bytes(pack(tiny_bank().tensors(), header, meta))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spot", "value"),
    [
        ("rows", [0, 9]),
        ("rows", [0, -1]),
        ("rows", [0, 2]),
        ("rows", [0]),
        ("rows", ["0", "1"]),
        ("modules", ["x.0", "x.0"]),
        ("modules", ["x.0", "y"]),
        ("modules", [["x.0"], ["x.1"]]),
        ("modules", [0, 1]),
        ("tensor", 5),
        ("name", None),
        ("shape", [4, 2]),
        ("base", True),
    ],
)
def test_a_group_that_does_not_fit_is_refused(spot: str, value: object) -> None:
    header: Any = json.loads(json.dumps(tiny_bank().header()))
    header["groups"][0][spot] = value
    with pytest.raises(RecastError):
        TemplateBank.from_bytes(pack(tiny_bank().tensors(), header, {}))


@pytest.mark.parametrize(
    ("spot", "value"),
    [
        ("format", "recast.bank/2"),
        ("sets", 0),
        ("sets", float("inf")),
        ("sets", "two"),
        ("groups", []),
        ("groups", {}),
        ("initial", [2, 2]),
        ("initial", [2, 4, -1]),
        ("initial", None),
    ],
)
def test_a_header_that_does_not_fit_is_refused(spot: str, value: object) -> None:
    header: Any = tiny_bank().header()
    header[spot] = value
    with pytest.raises(RecastError):
        TemplateBank.from_bytes(pack(tiny_bank().tensors(), header, {}))


@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.full((2, 2, 2), torch.nan)])
def test_templates_without_a_shape_or_not_finite_are_refused(value: Tensor) -> None:
    header: Any = json.loads(json.dumps(tiny_bank().header()))
    header["groups"][0]["shape"] = list(value.shape)
    tensors = [(k, value if k == "templates.0" else t) for k, t in tiny_bank().tensors()]
    with pytest.raises(RecastError):
        TemplateBank.from_bytes(pack(tensors, header, {}))
