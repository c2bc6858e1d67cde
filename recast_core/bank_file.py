"""The bank on disk and on the wire: one safetensors file with a JSON header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from recast_core.errors import RecastError

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
    """Header, meta and tensors of a bank file: float32, or uint8 where it holds integers.

    Raises:
        RecastError: not a safetensors file, or one that is not a bank.
    """
    try:
        tensors = safetensors.torch.load(content)
        # safetensors reads metadata from files only; its first 8 bytes give the JSON's length.
        length = int.from_bytes(content[:8], "little")
        text = json.loads(content[8 : 8 + length]).get("__metadata__", {}).get(_HEADER)
        parts = None if text is None else json.loads(text)
    except (
        SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError
    ) as error:  # fmt: skip
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
        {key: v if v.dtype == torch.uint8 else v.float() for key, v in tensors.items()},
    )


def _narrow(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.uint8:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor
