"""An earlier task's head as later tasks keep it: its identity, and what a message says of it."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from torch import nn

from protos import recast_v1_pb2 as pb
from recast_core.heads import head_kind
from recast_core.start import Start
from recast_core.wire.codec import Vector
from recast_core.wire.head_bytes import kind_of, unpack_head
from recast_core.wire.messages import RefusedError, from_broadcast

_FORM = struct.Struct("<IfIBI")


@dataclass(frozen=True, eq=False)
class Kept:
    """The classifier that a task keeps: an earlier task's, or as it stands the deployed one.

    Attributes:
        kind: of head.
        head: its bytes, as the server sent it; empty for the deployed one.
        vector: float32 ``[D]``, the coefficients that it was learned with; the start's where
            ``None``.
    """

    kind: str = "backbone"
    head: bytes = b""
    vector: Vector | None = None

    def classifier(self, own: nn.Module) -> nn.Module:
        """The classifier, where a model's ``own`` is; on its device. Its scores are logits.

        Raises:
            RefusedError: a head for other features.
        """
        if not self.head:
            return own
        linear = next((layer for layer in own.modules() if isinstance(layer, nn.Linear)), None)
        found = unpack_head(self.head, self.kind)
        scale = head_kind(self.kind).logit_scale
        found.weight.mul_(scale)
        found.bias.mul_(scale)
        if linear is None:
            return found
        if found.in_features != linear.in_features:
            raise RefusedError(
                "malformed",
                f"a head for width {found.in_features}, features have {linear.in_features}",
            )
        return found.to(linear.weight.device)


DEPLOYED = Kept()


def kept_of(evaluation: pb.Broadcast) -> pb.KeptHead:
    """What is kept of the evaluation of the task that learned a head."""
    found = pb.KeptHead(
        scale=evaluation.scale,
        coefficients=evaluation.coefficients,
        bits=evaluation.bits,
        head_kind=evaluation.head_kind,
        head=evaluation.head,
    )
    found.id = identity(evaluation.bank, found)
    return found


def identity(bank: int, kept: pb.KeptHead) -> int:
    """The first four bytes of the SHA-256 of all that a kept head says, big-endian, never 0."""
    told = _FORM.pack(bank, kept.scale, kept.bits, kept.head_kind & 0xFF, len(kept.coefficients))
    digest = hashlib.sha256(told + kept.coefficients + kept.head).digest()
    return int.from_bytes(digest[:4], "big") or 1


def read_kept(start: Start, kept: pb.KeptHead) -> Kept:
    """A kept head, fit for use.

    Raises:
        RefusedError: its coefficients or its head cannot be.
    """
    told = pb.Broadcast(bank=start.prefix, bits=kept.bits)
    told.scale, told.coefficients = kept.scale, kept.coefficients
    kind = kind_of(kept.head_kind)
    unpack_head(kept.head, kind)
    vector = from_broadcast(start, told)
    return Kept(kind, kept.head, np.ascontiguousarray(vector))
