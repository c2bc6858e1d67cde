"""One task: coefficients, head and class names, as an object and as a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.files import write_atomically

_HEADER = "recast.task"
_FORMAT = "recast.task/1"
SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False)
class SavedTask:
    """What a task adds to a backbone and its bank. The tensors are the library's own copies.

    Attributes:
        name: unique within a library.
        coefficients: float32 ``[D]`` on the CPU.
        weight: of the linear head, float32 ``[C, d]`` on the CPU.
        bias: of the linear head, float32 ``[C]``.
        classes: names of the C classes, or ``None``.
    """

    name: str
    coefficients: Tensor
    weight: Tensor
    bias: Tensor
    classes: tuple[str, ...] | None = None

    def head(self, device: torch.device | str = "cpu") -> nn.Linear:
        """A fresh frozen head on ``device``; training it does not change the task."""
        head = nn.Linear(self.weight.shape[1], self.weight.shape[0], device="meta")
        head.weight = nn.Parameter(self.weight.to(device, copy=True), requires_grad=False)
        head.bias = nn.Parameter(self.bias.to(device, copy=True), requires_grad=False)
        return head.eval()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(
            t.numel() * t.element_size() for t in (self.coefficients, self.weight, self.bias)
        )

    def to_bytes(self, bank: TemplateBank) -> bytes:
        """The task as a safetensors file whose header holds the rest as JSON."""
        text = json.dumps(
            {
                "format": _FORMAT,
                "name": self.name,
                "bank": bank.sha256.hex(),
                "classes": None if self.classes is None else list(self.classes),
            },
            sort_keys=True,
        )
        tensors = {"coefficients": self.coefficients, "weight": self.weight, "bias": self.bias}
        return safetensors.torch.save(tensors, {_HEADER: text})

    @classmethod
    def from_bytes(cls, content: bytes, bank: TemplateBank, source: str) -> SavedTask:
        """The task in a file's bytes, if it was learned with ``bank``.

        Raises:
            RecastError: corrupt, no task, or one of another bank; names ``source``.
        """
        try:
            tensors = safetensors.torch.load(content)
            length = int.from_bytes(content[:8], "little")
            header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_HEADER])
            kept = header["format"], str(header["name"]), str(header["bank"])
            classes = header["classes"]
            parts = tensors["coefficients"], tensors["weight"], tensors["bias"]
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RecastError(
                f"{source} is no task or is corrupt: delete it, and learn or export the task again"
            ) from error
        if kept[0] != _FORMAT:
            raise RecastError(f"{source} has format {kept[0]!r}: upgrade recast to read it")
        if kept[2] != bank.sha256.hex():
            raise RecastError(
                f"{source} was learned with bank {kept[2][:8]}, this bank is "
                f"{bank.sha256.hex()[:8]}: load the bank that it names, or learn the task again"
            )
        return make_task(kept[1], *parts, classes, bank)

    def save(self, folder: Path, bank: TemplateBank) -> Path:
        """Write the task into ``folder`` atomically; returns the file's path."""
        path = folder / file_name(self.name)
        write_atomically(path, self.to_bytes(bank))
        return path


def make_task(
    name: str,
    coefficients: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    classes: Sequence[str] | None,
    bank: TemplateBank,
) -> SavedTask:
    """A checked task that owns copies of its tensors.

    Raises:
        RecastError: no name, shapes that do not fit, or numbers that are not finite.
    """
    if not name:
        raise RecastError("a task needs a name: give one such as 'flowers'")
    if tuple(coefficients.shape) != (bank.sent,):
        raise RecastError(
            f"task {name!r} has coefficients of shape {list(coefficients.shape)}: this bank takes "
            f"[{bank.sent}]"
        )
    if bias is None:
        bias = weight.new_zeros(weight.shape[0])
    if weight.dim() != 2 or bias.shape != weight.shape[:1]:
        raise RecastError(
            f"the head of task {name!r} has weight {list(weight.shape)} and bias "
            f"{list(bias.shape)}: give a Linear(features, classes)"
        )
    if classes is not None and len(classes) != weight.shape[0]:
        raise RecastError(
            f"task {name!r} has {len(classes)} class names and a head of {weight.shape[0]} "
            "classes: give one name a class"
        )
    own = [t.detach().to("cpu", torch.float32, copy=True) for t in (coefficients, weight, bias)]
    if not all(bool(torch.isfinite(t).all()) for t in own):
        raise RecastError(f"task {name!r} holds NaN or infinity: learn it again")
    names = None if classes is None else tuple(str(c) for c in classes)
    return SavedTask(name, own[0].contiguous(), own[1].contiguous(), own[2].contiguous(), names)


def file_name(task: str) -> str:
    """The name of a task's file: the task's own, with what file systems dislike escaped."""
    escaped = quote(task, safe=" +,=@()[]")
    if escaped.startswith("."):
        escaped = "%2E" + escaped[1:]
    if len(escaped) + len(SUFFIX) > 200:
        escaped = escaped[:120] + "-" + hashlib.sha256(task.encode()).hexdigest()[:16]
    return escaped + SUFFIX
