"""Heads, and what they are made of, as bytes. One length, one form; everything else is refused.

Little-endian. Both begin with version (1 byte), kind (1), feature width d (2) and classes C (2).

Statistics go on with a bitmap of the P classes that the client has (C bits, most significant
first), and their counts (4 bytes each); then comes what the kind says (``HeadKind.layout``),
float32 numbers and integers of 8 bits.

A head goes on with one scale (float32), C x d weights relative to it (float16, 11 bits) and C
biases (float32).
"""

from __future__ import annotations

import math
import struct
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.heads import Numbers, Statistics, head_kind, head_names
from recast_core.heads.base import frozen_linear
from recast_core.wire.messages import RefusedError

VERSION = 1
HEADER = struct.Struct("<BBHH")
_LARGEST = 65535
# Features and weights of a sound network are far below; beyond it sums would lose the others' bits.
MAX_MAGNITUDE = 1e6


def kind_of(code: int) -> str:
    """The kind of head that a message names.

    Raises:
        RefusedError: ``malformed``, a number of a later version.
    """
    for name in head_names():
        if head_kind(name).code == code:
            return name
    raise RefusedError("malformed", f"no kind of head has the number {code}")


def code_of(kind: str) -> pb.HeadKind:
    """The kind of head as a message names it; enums of proto3 are open, so any number may go."""
    return cast(pb.HeadKind, head_kind(kind).code)


def statistics_length(kind: str, classes: int, width: int, present: int) -> int:
    """The bytes of statistics with ``present`` of ``classes`` classes."""
    fixed = HEADER.size + (classes + 7) // 8 + 4 * present
    return fixed + sum(_size(one) for one in head_kind(kind).layout(width, present))


def pack_statistics(kind: str, statistics: Statistics, classes: int) -> bytes:
    """What a client sends of ``HeadKind.statistics``.

    Raises:
        RecastError: more classes or a wider feature than the form holds.
    """
    found = head_kind(kind)
    width, ids = found.width(statistics), statistics["classes"]
    if max(width, classes) > _LARGEST:
        raise RecastError(
            f"{classes} classes and features of width {width}: a head that travels holds "
            f"{_LARGEST} at most, use --head local"
        )
    present = np.zeros(classes, np.uint8)
    present[ids.numpy().astype(np.uint16)] = 1
    parts = [
        HEADER.pack(VERSION, found.code, width, classes),
        np.packbits(present).tobytes(),
        statistics["counts"].numpy().astype("<u4").tobytes(),
    ]
    for one in found.layout(width, len(ids)):
        parts.append(statistics[one.name].numpy().astype(_form(one)).tobytes())
    return b"".join(parts)


def unpack_statistics(kind: str, content: bytes, classes: int, width: int) -> Statistics:
    """The statistics in a client's bytes, fit for ``HeadKind.merge``.

    Args:
        kind: that was asked for.
        content: from a client.
        classes: of the task.
        width: of the features.

    Raises:
        RefusedError: ``wrong-version``, ``wrong-length``, ``malformed``, ``not-finite`` or
            ``out-of-range``.
    """
    wanted_kind = head_kind(kind)
    _header(content, wanted_kind.code, classes, width)
    start = HEADER.size + (classes + 7) // 8
    bitmap = np.frombuffer(content[HEADER.size : start], np.uint8)
    if len(bitmap) < (classes + 7) // 8:
        raise RefusedError("wrong-length", f"{len(content)} bytes end within the classes")
    flags = np.unpackbits(bitmap)
    if flags[classes:].any():
        raise RefusedError("malformed", "a class beyond the last")
    ids = flags.nonzero()[0]
    wanted = statistics_length(kind, classes, width, len(ids))
    if len(content) != wanted or not len(ids):
        raise RefusedError(
            "wrong-length", f"{len(content)} bytes of {len(ids)} classes: expected {wanted}"
        )
    counts = np.frombuffer(content, "<u4", len(ids), start)
    if not counts.all() or counts.max() > np.iinfo(np.int32).max:
        raise RefusedError("out-of-range", "a class with no examples, or too many to be true")
    start += 4 * len(ids)
    # A kind may want to know the width, or the number of examples, where its numbers do not tell.
    found: dict[str, Tensor] = {
        "width": torch.tensor(width, dtype=torch.int32),
        "counts": torch.from_numpy(counts.astype(np.int32)),
        "classes": torch.from_numpy(ids.astype(np.int64)),
    }
    for one in wanted_kind.layout(width, len(ids)):
        values = np.frombuffer(content, _form(one), math.prod(one.shape), start)
        start += values.nbytes
        room = MAX_MAGNITUDE**2 * counts.sum() if one.squares else MAX_MAGNITUDE
        _check_numbers(values, float(room))
        native = values.astype(np.int8 if one.whole else np.float32)
        found[one.name] = torch.from_numpy(native).view(one.shape)
    wanted_kind.check(found)
    return found


def pack_head(head: nn.Linear, kind: str) -> bytes:
    """A merged head ``Linear(d, C)`` as clients are sent it.

    Raises:
        RecastError: weights that are not finite.
    """
    weight, bias = head.weight.detach().cpu().numpy(), head.bias.detach().cpu().numpy()
    scale = np.float32(np.abs(weight).max(initial=0.0))
    if not (np.isfinite(scale) and np.isfinite(bias).all()):
        raise RecastError("the merged head holds NaN or infinity: look for a client that diverged")
    relative = weight / scale if scale else weight
    return b"".join(
        (
            HEADER.pack(VERSION, head_kind(kind).code, head.in_features, head.out_features),
            scale.astype("<f4").tobytes(),
            relative.astype("<f2").tobytes(),
            bias.astype("<f4").tobytes(),
        )
    )


def unpack_head(content: bytes, kind: str) -> nn.Linear:
    """The frozen head ``Linear(d, C)`` in a server's bytes.

    Raises:
        RefusedError: ``wrong-version``, ``wrong-length``, ``malformed`` or ``not-finite``.
    """
    width, classes = _header(content, head_kind(kind).code)
    if len(content) != HEADER.size + 4 + classes * (2 * width + 4):
        raise RefusedError("wrong-length", f"{len(content)} bytes of a head of {classes} classes")
    scale = np.frombuffer(content, "<f4", 1, HEADER.size)
    relative = np.frombuffer(content, "<f2", classes * width, HEADER.size + 4)
    bias = np.frombuffer(content, "<f4", classes, HEADER.size + 4 + relative.nbytes)
    with np.errstate(over="ignore", invalid="ignore"):
        weight = relative.astype(np.float32) * scale
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise RefusedError("not-finite", "the head holds NaN or infinity")
    rows = torch.from_numpy(weight.reshape(classes, width))
    return frozen_linear(rows, torch.from_numpy(bias.astype(np.float32)))


def unpack_head_for(features: Tensor, content: bytes, kind: str) -> nn.Linear:
    """The head in a server's bytes, for features ``[N, d]``, on their device.

    Raises:
        RefusedError: as ``unpack_head``, or ``malformed``: a head for another width.
    """
    found = unpack_head(content, kind)
    if found.in_features != features.shape[1]:
        raise RefusedError(
            "malformed", f"a head for width {found.in_features}, features have {features.shape[1]}"
        )
    return found.to(features.device)


def _form(one: Numbers) -> str:
    return "i1" if one.whole else "<f4"


def _size(one: Numbers) -> int:
    return math.prod(one.shape) * np.dtype(_form(one)).itemsize


def _header(
    content: bytes, code: int, classes: int | None = None, width: int | None = None
) -> tuple[int, int]:
    if len(content) < HEADER.size:
        raise RefusedError("wrong-length", f"{len(content)} bytes are no head")
    version, kind, its_width, its_classes = HEADER.unpack(content[: HEADER.size])
    if version != VERSION:
        raise RefusedError("wrong-version", f"a head of version {version}, this is {VERSION}")
    if kind != code:
        raise RefusedError("malformed", f"a head of kind {kind} in the place of {code}")
    if not its_width or not its_classes:
        raise RefusedError("malformed", "a head of no features or no classes")
    if (classes or its_classes, width or its_width) != (its_classes, its_width):
        raise RefusedError(
            "wrong-length",
            f"{its_classes} classes and width {its_width}: expected {classes} and {width}",
        )
    return its_width, its_classes


def _check_numbers(values: NDArray[np.float32], room: float) -> None:
    if not np.isfinite(values).all():
        raise RefusedError("not-finite", "head statistics hold NaN or infinity")
    if len(values) and float(np.abs(values.astype(np.float64)).max()) > room:
        raise RefusedError("out-of-range", f"head statistics beyond {room:g}")
