"""Groups of a template bank: tensors that share templates, held as floats or as integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recast_core.packed import Packed


@dataclass(frozen=True, eq=False)
class TemplateGroup:
    """Tensors of one shape that share templates.

    Attributes:
        name: unique within the bank.
        modules: dotted names of the L target modules.
        tensor: the rewritten tensor of each module (``weight``, ``in_proj_weight``, ...).
        rows: for each module its row of coefficients in the bank. Modules with one row in common
            move together.
        templates: float32 ``[n, *shape]``.
        base: float32 ``[L, *shape]`` for the residual form, or ``None``.
    """

    name: str
    modules: tuple[str, ...]
    tensor: str
    rows: tuple[int, ...]
    templates: Tensor
    base: Tensor | None = None

    @property
    def count(self) -> int:
        """The number n of templates."""
        return self.templates.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of each rewritten tensor."""
        return tuple(self.templates.shape[1:])

    def header(self) -> dict[str, object]:
        """Everything but the tensors, as plain JSON values."""
        return {
            **_named(self),
            "shape": list(self.templates.shape),
            "base": self.base is not None,
        }

    def tensors(self, index: int) -> list[tuple[str, Tensor]]:
        """The tensors by file name, in canonical order; ``index`` is the group's place."""
        named = [(f"templates.{index}", self.templates)]
        return named if self.base is None else [*named, (f"base.{index}", self.base)]


@dataclass(frozen=True, eq=False)
class PackedGroup:
    """A group whose templates are integers in file and message, and floats only while in use.

    Attributes:
        name: as in ``TemplateGroup``.
        modules: likewise.
        tensor: likewise.
        rows: likewise.
        packed: the templates.
    """

    name: str
    modules: tuple[str, ...]
    tensor: str
    rows: tuple[int, ...]
    packed: Packed

    @property
    def base(self) -> None:
        """There is none: a residual form adds to the backbone's own tensors."""
        return

    @property
    def count(self) -> int:
        """The number n of templates."""
        return self.packed.size[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of each rewritten tensor."""
        return self.packed.size[1:]

    @property
    def templates(self) -> Tensor:
        """The templates, reconstructed: float32 ``[n, *shape]``."""
        return self.packed.templates()

    def header(self) -> dict[str, object]:
        """Everything but the content and scales, as plain JSON values."""
        return {
            **_named(self),
            "shape": list(self.packed.size),
            "bits": self.packed.bits,
            "rank": self.packed.rank,
        }

    def tensors(self, index: int) -> list[tuple[str, Tensor]]:
        """The content (uint8) and scales by file name, in canonical order."""
        content = torch.frombuffer(bytearray(self.packed.content), dtype=torch.uint8)
        return [(f"packed.{index}", content), (f"scales.{index}", self.packed.scales)]


Group = TemplateGroup | PackedGroup


def read_group(entry: Mapping[str, Any], index: int, tensors: Mapping[str, Tensor]) -> Group:
    """The group that a header's entry and the file's tensors describe.

    Raises:
        LookupError: something is missing.
        TypeError: something is of another kind.
        ValueError: entry and tensors disagree.
        RecastError: packed templates that cannot be.
    """
    name, tensor = text(entry["name"]), text(entry["tensor"])
    modules, rows = tuple(map(text, entry["modules"])), tuple(entry["rows"])
    if "bits" not in entry:
        stack = tensors[f"templates.{index}"]
        if list(stack.shape) != entry["shape"]:
            raise ValueError(
                f"templates of shape {list(stack.shape)}, header says {entry['shape']}"
            )
        base = tensors[f"base.{index}"] if entry["base"] else None
        return TemplateGroup(name, modules, tensor, rows, stack.float(), base)
    content = tensors[f"packed.{index}"]
    if content.dtype != torch.uint8 or content.dim() != 1:
        raise ValueError(f"packed.{index} is {content.dtype} of {content.dim()} axes")
    size = tuple(map(_whole, entry["shape"]))
    packed = Packed(
        size,
        _whole(entry["bits"]),
        _whole(entry["rank"]),
        content.numpy().tobytes(),
        tensors[f"scales.{index}"],
    )
    return PackedGroup(name, modules, tensor, rows, packed)


def text(value: object) -> str:
    """``value`` if it is a string; raises ValueError otherwise."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no name")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _named(group: Group) -> dict[str, object]:
    return {
        "name": group.name,
        "modules": list(group.modules),
        "tensor": group.tensor,
        "rows": list(group.rows),
    }
