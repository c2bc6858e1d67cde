"""The bank on disk and on the wire: one safetensors file with a JSON header."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from recast_core.errors import RecastError

if TYPE_CHECKING:
    from recast_core.bank import TemplateBank, TemplateGroup

_HEADER = "recast.bank"


def pack(
    tensors: list[tuple[str, Tensor]], header: Mapping[str, object], meta: Mapping[str, str]
) -> bytes:
    """Tensors and header as the bytes of a safetensors file."""
    named = {name: _narrow(tensor.detach().cpu().contiguous()) for name, tensor in tensors}
    # One metadata key only: safetensors does not promise an order among several, and the same bank
    # must be the same bytes.
    text = json.dumps({"header": header, "meta": meta}, sort_keys=True)
    return safetensors.torch.save(named, {_HEADER: text})


def unpack(content: bytes, name: str) -> tuple[dict[str, Any], dict[str, str], dict[str, Tensor]]:
    """Header, meta and float32 tensors of a bank file.

    Raises:
        RecastError: not a safetensors file, or one that is not a bank.
    """
    try:
        tensors = safetensors.torch.load(content)
        # safetensors reads metadata from files only; its first 8 bytes give the JSON's length.
        length = int.from_bytes(content[:8], "little")
        text = json.loads(content[8 : 8 + length]).get("__metadata__", {}).get(_HEADER)
        parts = None if text is None else json.loads(text)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecastError(
            f"{name} is no bank or is corrupt ({str(error).splitlines()[0][:80]}): make it again "
            "with `recast mimic`, or delete it so that it is fetched again"
        ) from error
    if not isinstance(parts, dict) or not all(
        isinstance(parts.get(key), dict) for key in ("header", "meta")
    ):
        raise RecastError(f"{name} is a safetensors file but no bank: make one with `recast mimic`")
    return (
        parts["header"],
        dict(parts["meta"]),
        {key: value.float() for key, value in tensors.items()},
    )


def build(
    bank_type: type[TemplateBank],
    group_type: type[TemplateGroup],
    header: Mapping[str, Any],
    meta: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    name: str,
) -> TemplateBank:
    """Put a bank together from the parts of its file."""
    try:
        if header["format"] != "recast.bank/1":
            raise RecastError(f"{name} has format {header['format']!r}: upgrade recast to read it")
        groups = tuple(
            group_type(
                name=_text(entry["name"]),
                modules=tuple(map(_text, entry["modules"])),
                tensor=_text(entry["tensor"]),
                rows=tuple(entry["rows"]),
                templates=_shaped(tensors[f"templates.{index}"], entry["shape"]),
                base=tensors[f"base.{index}"] if entry["base"] else None,
            )
            for index, entry in enumerate(header["groups"])
        )
        initial = torch.split(tensors["initial"], list(header["initial"]))
        return bank_type(
            groups=groups,
            initial=tuple(initial),
            sets=int(header["sets"]),
            residual=bool(header["residual"]),
            backbone=str(header["backbone"]),
            meta=meta,
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:200]
        raise RecastError(
            f"{name} has a header that does not fit its tensors ({cause}): make it again with "
            "`recast mimic`"
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees all of it or nothing.

    Raises:
        RecastError: the folder cannot be made or written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RecastError(
            f"cannot write {path}: {error.strerror or error}; {remedy(error)}"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def remedy(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "make room on that disk" if full else "choose a folder that can be written"


def _narrow(tensor: Tensor) -> Tensor:
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def _shaped(tensor: Tensor, shape: list[int]) -> Tensor:
    if list(tensor.shape) != shape:
        raise ValueError(f"templates of shape {list(tensor.shape)}, header says {shape}")
    return tensor


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no name")
    return value
