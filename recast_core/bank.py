"""The template bank: frozen templates, their initial coefficients, and one identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recast_core.bank_file import pack, unpack
from recast_core.errors import RecastError
from recast_core.files import read_bytes, write_atomically
from recast_core.groups import Group, PackedGroup, TemplateGroup, read_group

__all__ = ["Group", "PackedGroup", "TemplateBank", "TemplateGroup"]

_PLAIN, _PACKED = "recast.bank/1", "recast.bank/2"


@dataclass(frozen=True, eq=False)
class TemplateBank:
    """All that the clients of a federation share besides the backbone.

    A row is the ``n`` coefficients of one target module (or of several that move together). The
    coefficients of the bank are the rows one after another, ``[D]`` float32; with K sets the
    trained vector holds, row by row, K sets of ``n``.

    Attributes:
        groups: in model order.
        initial: for each row its start ``c0``, float32 ``[n_r]``.
        sets: K.
        residual: the backbone's own weights (or ``group.base``) are added to the combination, and
            coefficients count from ``c0``.
        backbone: hexadecimal fingerprint of the backbone that the bank was made for ("" for any).
        meta: how the bank was made; not part of its identity.
    """

    groups: tuple[Group, ...]
    initial: tuple[Tensor, ...]
    sets: int = 1
    residual: bool = False
    backbone: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    def __repr__(self) -> str:
        return (
            f"TemplateBank({self.template_count} templates in {len(self.groups)} groups, "
            f"{self.sent} coefficients, {'residual' if self.residual else 'plain'}, "
            f"SHA-256 {self.sha256.hex()[:8]})"
        )

    @property
    def method(self) -> str:
        """Empty: a client is sent the bank, or makes it from a seed."""
        return ""

    @cached_property
    def sent(self) -> int:
        """D, the number of coefficients in an update."""
        return sum(row.numel() for row in self.initial)

    @property
    def trained(self) -> int:
        """K x D, the number of coefficients that a client trains."""
        return self.sets * self.sent

    @property
    def template_count(self) -> int:
        """The number of templates over all groups."""
        return sum(group.count for group in self.groups)

    @property
    def customary_rate(self) -> float | None:
        """See ``Start``: what the bank's maker wrote beside it."""
        try:
            rate = float(self.meta.get("learning-rate", "nan"))
        except ValueError:
            return None
        return rate if 0 < rate < float("inf") else None

    @cached_property
    def initial_vector(self) -> Tensor:
        """``c0`` as one float32 vector ``[D]``."""
        return torch.cat([row.reshape(-1) for row in self.initial])

    @cached_property
    def sha256(self) -> bytes:
        """SHA-256 over the canonical byte form: 32 bytes.

        The form is the header as JSON (sorted keys, no spaces), a zero byte, then every tensor's
        little-endian float32 bytes in the header's order; of packed templates the content and the
        scales. Storage precision and ``meta`` do not enter, so the identity is that of the
        function, not of the file.
        """
        digest = hashlib.sha256()
        digest.update(json.dumps(self.header(), sort_keys=True, separators=(",", ":")).encode())
        digest.update(b"\0")
        for _, tensor in self.tensors():
            kind = "u1" if tensor.dtype == torch.uint8 else "<f4"
            digest.update(tensor.detach().cpu().contiguous().numpy().astype(kind).tobytes())
        return digest.digest()

    @cached_property
    def prefix(self) -> int:
        """The first four bytes of the identity as a big-endian number: what messages carry."""
        return int.from_bytes(self.sha256[:4], "big")

    def header(self) -> dict[str, object]:
        """Everything but the tensors, as plain JSON values."""
        packed = any(isinstance(group, PackedGroup) for group in self.groups)
        return {
            "format": _PACKED if packed else _PLAIN,
            "sets": self.sets,
            "residual": self.residual,
            "backbone": self.backbone,
            "groups": [group.header() for group in self.groups],
            "initial": [row.numel() for row in self.initial],
        }

    def tensors(self) -> list[tuple[str, Tensor]]:
        """The tensors by file name, in canonical order."""
        named = [("initial", self.initial_vector)]
        for index, group in enumerate(self.groups):
            named += group.tensors(index)
        return named

    def to_bytes(self) -> bytes:
        """The bank as a safetensors file; float16 for tensors that it holds without loss."""
        return pack(self.tensors(), self.header(), dict(self.meta))

    @classmethod
    def from_bytes(cls, content: bytes, *, name: str = "bank") -> TemplateBank:
        """The bank in a safetensors file's bytes.

        Raises:
            RecastError: the bytes are no bank, or their header and tensors disagree.
        """
        header, meta, tensors = unpack(content, name)
        return _build(header, meta, tensors, name)

    def save(self, path: Path | str) -> None:
        """Write the bank to ``path`` atomically."""
        write_atomically(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: Path | str, sha256: bytes | None = None) -> TemplateBank:
        """Read the bank at ``path`` and verify it against ``sha256`` where given.

        Raises:
            RecastError: unreadable, corrupt, or another bank than the one named.
        """
        path = Path(path)
        try:
            content = read_bytes(path)
        except OSError as error:
            raise RecastError(
                f"cannot read the bank {path}: {error.strerror or error}; make one with "
                "`recast mimic`"
            ) from error
        bank = cls.from_bytes(content, name=str(path))
        if sha256 is not None and bank.sha256 != sha256:
            raise RecastError(
                f"{path} is another bank: its SHA-256 begins {bank.sha256[:4].hex()}, "
                f"{sha256[:4].hex()} was asked for; delete it so that it is fetched again"
            )
        return bank


def _build(
    header: Mapping[str, Any],
    meta: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    name: str,
) -> TemplateBank:
    """Put a bank together from the parts of its file."""
    try:
        if header["format"] not in (_PLAIN, _PACKED):
            raise RecastError(f"{name} has format {header['format']!r}: upgrade recast to read it")
        groups = tuple(
            read_group(entry, index, tensors) for index, entry in enumerate(header["groups"])
        )
        initial = torch.split(tensors["initial"], list(header["initial"]))
        bank = TemplateBank(
            groups=groups,
            initial=tuple(initial),
            sets=int(header["sets"]),
            residual=bool(header["residual"]),
            backbone=str(header["backbone"]),
            meta=meta,
        )
        if bank.header()["format"] != header["format"]:
            raise ValueError("a format that its groups do not have")
        return bank
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:200]
        raise RecastError(
            f"{name} has a header that does not fit its tensors ({cause}): make it again with "
            "`recast mimic`"
        ) from error


def _check(bank: TemplateBank) -> None:
    if not bank.groups:
        raise RecastError("a bank needs at least one group: choose targets that match modules")
    if bank.sets < 1:
        raise RecastError(f"a bank with {bank.sets} sets: give at least 1")
    seen: set[tuple[str, str]] = set()
    for group in bank.groups:
        n = group.count
        if len(group.rows) != len(group.modules):
            raise RecastError(
                f"group {group.name!r} has {len(group.modules)} modules but "
                f"{len(group.rows)} coefficient rows: make the bank again"
            )
        for module, row in zip(group.modules, group.rows, strict=True):
            if (module, group.tensor) in seen:
                raise RecastError(f"module {module!r} is in two groups of the bank: make it again")
            seen.add((module, group.tensor))
            if not 0 <= row < len(bank.initial) or bank.initial[row].shape != (n,):
                raise RecastError(
                    f"module {module!r} has no row of {n} coefficients in the bank: make it again"
                )
        if group.base is not None and group.base.shape != (len(group.modules), *group.shape):
            raise RecastError(
                f"group {group.name!r} has base weights of another shape than its "
                "templates: make the bank again"
            )
    for name, tensor in bank.tensors():
        if name.startswith("packed."):
            continue  # checked where it was made
        if tensor.dtype != torch.float32:
            raise RecastError(f"{name} of the bank is {tensor.dtype}: give float32 tensors")
        if not bool(torch.isfinite(tensor).all()):
            raise RecastError(f"{name} of the bank holds NaN or infinity: mimic a finite model")
