"""Where vectors count from: a template bank's start, or that of another method."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor


class Start(Protocol):
    """What both sides of a federation must have in common before they exchange a vector.

    A ``TemplateBank`` is one: its coefficients start at ``initial_vector``.
    """

    @property
    def sha256(self) -> bytes:
        """The identity: 32 bytes."""

    @property
    def prefix(self) -> int:
        """The first four bytes of the identity as a big-endian number: what messages carry."""

    @property
    def method(self) -> str:
        """The method, with settings, by which a client derives it; empty for a bank."""

    @property
    def sent(self) -> int:
        """D, how many numbers are sent."""

    @property
    def trained(self) -> int:
        """How many numbers train."""

    @property
    def template_count(self) -> int:
        """How many templates there are."""

    @property
    def initial_vector(self) -> Tensor:
        """Where training starts: float32 ``[D]``."""

    @property
    def customary_rate(self) -> float | None:
        """The learning rate that suits it, where that is not the method's."""

    def to_bytes(self) -> bytes:
        """What a client without it is sent; empty where every client derives it."""


@dataclass(frozen=True, eq=False)
class MethodStart:
    """The start of a method that needs no bank: backbone and method determine it.

    Attributes:
        method: its canonical name with settings, as ``Method.canonical`` gives it.
        backbone: fingerprint of the backbone.
        initial_vector: float32 ``[D]``.
        trained: how many numbers train.
    """

    method: str
    backbone: str
    initial_vector: Tensor
    trained: int
    template_count: int = 0
    customary_rate: float | None = None

    @cached_property
    def sha256(self) -> bytes:
        """SHA-256 over method, fingerprint and start vector, each after the other's zero byte."""
        digest = hashlib.sha256(b"recast.method/1\0")
        digest.update(self.method.encode() + b"\0" + self.backbone.encode() + b"\0")
        digest.update(self.initial_vector.cpu().contiguous().numpy().astype("<f4").tobytes())
        return digest.digest()

    @cached_property
    def prefix(self) -> int:
        """See ``Start``."""
        return int.from_bytes(self.sha256[:4], "big")

    @property
    def sent(self) -> int:
        """See ``Start``."""
        return self.initial_vector.numel()

    def to_bytes(self) -> bytes:
        """Nothing crosses."""
        return b""
