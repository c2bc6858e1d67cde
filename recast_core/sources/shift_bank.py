"""Shift banks: templates that lead from a deployed network towards other domains of its classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from recast_core.bank import PackedGroup, TemplateBank, TemplateGroup
from recast_core.classifier import find_head
from recast_core.errors import RecastError
from recast_core.layers import why_not
from recast_core.mimicry import fingerprint
from recast_core.sources.packing import pack_directions
from recast_core.sources.task_vectors import (
    NORMS,
    base_tensor,
    block_of,
    difference_tensors,
    stage_of,
)
from recast_core.targets import weight_name

_PART = 1 << 16
# Of AdamW on coefficients in units of a spread.
LEARNING_RATE = 0.4


@dataclass(frozen=True, eq=False)
class Directions:
    """The leading directions of source networks' differences, section by section.

    Attributes:
        sections: names of the tensors of each section, in model order.
        stacks: by tensor name, float32 ``[n, *shape]``; direction j of a section is the j-th entry
            of all its tensors together, and as long as the sources spread along it.
        spread: that length, float64 ``[sections, n]``, falling.
    """

    sections: tuple[tuple[str, ...], ...]
    stacks: Mapping[str, Tensor]
    spread: Tensor

    @property
    def section_of(self) -> dict[str, int]:
        """The section of each tensor."""
        return {name: index for index, names in enumerate(self.sections) for name in names}


def member_tensors(model: nn.Module, head: str | None = None) -> tuple[str, ...]:
    """What a shift bank moves, in model order: dotted names of tensors.

    Weights and biases of Conv2d and Linear layers and of attention's projections, and scale and
    shift of BatchNorm2d and LayerNorm; none of a layer that does more than its class. Not the
    classifier, which stays right only if it stays; not
    running statistics, which every client can count; not class token and position embedding, which
    belong to no layer.

    Args:
        model: the deployed network.
        head: dotted name of its classifier; the last Linear of the network where ``None``.

    Raises:
        RecastError: nothing to move.
    """
    head = head or find_head(model)
    names = [
        f"{name}.{tensor}"
        for name, module in model.named_modules()
        if not (head and f"{name}.".startswith(f"{head}."))
        if type(module) in NORMS or weight_name(module) is not None
        if why_not(module, weight_name(module) or "weight") is None
        for tensor in difference_tensors(module, statistics=False)
    ]
    if not names:
        raise RecastError(
            "this network has no Conv2d, Linear, attention or normalisation layer that a shift "
            "bank could move: choose another backbone"
        )
    return tuple(names)


def divide(names: Sequence[str], count: int) -> tuple[tuple[str, ...], ...]:
    """Tensors in model order as ``count`` consecutive sections of about equal depth.

    Stages (``layer1``, ``encoder_layer_3``) are kept whole where there are enough of them: a
    ResNet-34 in four sections is stem and first stage, then stage by stage; a ViT has equal numbers
    of blocks. Else blocks (``layer1.2``) are kept whole. What comes before the first stage goes
    with it, but is a section of its own where that makes up the number.

    Raises:
        RecastError: fewer blocks than sections, or no section.
    """
    if count < 1:
        raise RecastError(f"{count} sections: give at least 1")
    units: list[list[str]] = []
    for key in (stage_of, block_of):
        units, stem = _units(names, key)
        if stem and len(units) + 1 == count:
            return (tuple(stem), *map(tuple, units))
        units[0][:0] = stem
        if len(units) >= count:
            break
    if len(units) < count:
        raise RecastError(
            f"{count} sections of a network of {len(units)} blocks: give at most {len(units)}"
        )
    bounds = [round(index * len(units) / count) for index in range(count + 1)]
    return tuple(
        tuple(name for unit in units[start:stop] for name in unit)
        for start, stop in pairwise(bounds)
    )


def _units(names: Sequence[str], key: Callable[[str], str]) -> tuple[list[list[str]], list[str]]:
    """Runs of names with one key and several modules, and what comes before the first of them.

    Single modules in between (a last norm, say) go with the unit before them. Where there are no
    such runs, every module with a key is a unit.
    """
    modules = [name.rpartition(".")[0] for name in names]
    keys = [key(module) for module in modules]
    found_in = set(zip(keys, modules, strict=True))
    held = Counter(found for found, _ in found_in)
    least = 2 if any(found and number > 1 for found, number in held.items()) else 1
    units: list[list[str]] = []
    stem: list[str] = []
    last = ""
    for name, found in zip(names, keys, strict=True):
        if found and found != last and held[found] >= least:
            units.append([])
            last = found
        (units[-1] if units else stem).append(name)
    return (units, stem) if units else ([stem], [])


def principal_directions(
    differences: Sequence[Mapping[str, Tensor]],
    sections: Sequence[Sequence[str]],
    count: int,
    device: torch.device | None = None,
) -> Directions:
    """The directions along which source networks differ most from the deployed one.

    With the S sources' differences of a section as rows of ``M`` ``[S, P]``, the Gram matrix
    ``M M^T = V diag(l) V^T`` gives the leading right singular directions ``V_n^T M`` at the cost of
    an S x S problem, as in mimicry. Divided by ``sqrt(S)``, direction j is as long as the root mean
    square of the sources' coordinates along it, so that a coefficient of 1 is one spread. Its sign
    is such that the sources lie at positive coordinates on average.

    Args:
        differences: for each source, by tensor name, float ``[*shape]``.
        sections: names of the tensors of each.
        count: n.
        device: where the sums are taken; the CPU where ``None``.

    Raises:
        RecastError: more directions than sources, a source that lacks a tensor or has another
            shape, or numbers that are not finite.
    """
    sources = len(differences)
    if not 1 <= count <= sources:
        raise RecastError(
            f"{count} directions from {sources} source networks: give 1 to {max(sources, 1)}, "
            "or more sources"
        )
    stacks: dict[str, Tensor] = {}
    spread = torch.zeros(len(sections), count, dtype=torch.float64)
    for index, names in enumerate(sections):
        gram = torch.zeros(sources, sources, dtype=torch.float64, device=device)
        for name in names:
            for part in _rows(differences, name, device).split(_PART, dim=1):
                wide = part.double()
                gram += wide @ wide.T
        values, vectors = torch.linalg.eigh(gram.cpu())
        leading = vectors.flip(1)[:, :count]
        leading = leading * torch.where(leading.sum(0) < 0, -1.0, 1.0) / math.sqrt(sources)
        spread[index] = (values.flip(0)[:count].clamp_min(0) / sources).sqrt()
        for name in names:
            shape = differences[0][name].shape
            mixed = leading.T.float().to(gram.device) @ _rows(differences, name, device)
            stacks[name] = mixed.view(count, *shape).cpu()
    return Directions(tuple(map(tuple, sections)), stacks, spread)


def _rows(
    differences: Sequence[Mapping[str, Tensor]], name: str, device: torch.device | None
) -> Tensor:
    """A tensor's differences as float32 ``[S, P]``."""
    rows = []
    for index, source in enumerate(differences):
        if name not in source or source[name].shape != differences[0][name].shape:
            raise RecastError(
                f"source {index} has no tensor {name} of the others' shape: give networks "
                "fine-tuned from one backbone"
            )
        rows.append(source[name].detach().to(device or "cpu").float().reshape(-1))
    stacked = torch.stack(rows)
    if not bool(torch.isfinite(stacked).all()):
        raise RecastError(f"{name} of a source holds NaN or infinity: leave out what diverged")
    return stacked


def shift_bank(
    model: nn.Module,
    directions: Directions,
    *,
    rank: int | None = 32,
    bits: int = 4,
    meta: Mapping[str, str] | None = None,
    device: torch.device | None = None,
) -> TemplateBank:
    """The bank ``W = W0 + sum_j c[section, j] D_j`` over all the directions' tensors.

    A residual bank with one row of n coefficients for each section, which starts at the backbone.

    Args:
        model: the deployed network; not changed.
        directions: of source networks fine-tuned from it.
        rank: see ``pack_directions``; ``None`` keeps the directions as they are, in float32.
        bits: likewise.
        meta: how the bank was made.
        device: where packing happens.

    Raises:
        RecastError: directions of another network, or a rank or width that cannot be.
    """
    for name, stack in directions.stacks.items():
        module, _, tensor = name.rpartition(".")
        base = base_tensor(model, module, tensor)
        if base.shape != stack.shape[1:]:
            raise RecastError(
                f"directions of {name} have shape {list(stack.shape[1:])}, the backbone's "
                f"{list(base.shape)}: make them from networks fine-tuned from this backbone"
            )
    packed = None
    if rank is not None:
        packed = pack_directions(directions.stacks, rank, bits, device)
    groups: list[TemplateGroup | PackedGroup] = []
    for name, section in directions.section_of.items():
        module, _, tensor = name.rpartition(".")
        if packed is None:
            stack = directions.stacks[name]
            groups.append(TemplateGroup(name, (module,), tensor, (section,), stack))
        else:
            groups.append(PackedGroup(name, (module,), tensor, (section,), packed[name]))
    sections, count = directions.spread.shape
    return TemplateBank(
        groups=tuple(groups),
        initial=tuple(torch.zeros(count) for _ in range(sections)),
        residual=True,
        backbone=fingerprint(model),
        meta={"source": "shifts", "learning-rate": str(LEARNING_RATE), **(meta or {})},
    )
