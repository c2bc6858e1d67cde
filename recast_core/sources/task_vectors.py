"""Task vectors: templates that lead from the backbone towards fine-tuned networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from recast_core.bank import TemplateBank, TemplateGroup
from recast_core.config import RecastConfig
from recast_core.errors import RecastError
from recast_core.layers import check_replaceable
from recast_core.mimicry import fingerprint, stacked_weights
from recast_core.targets import TargetGroup, find_groups, weight_name

Share = Literal["group", "block", "stage", "model"]
NORMS = (nn.BatchNorm2d, nn.LayerNorm)
_STATISTICS = ("running_mean", "running_var")


def task_vector_bank(
    model: nn.Module,
    sources: Sequence[Mapping[str, Tensor] | nn.Module],
    config: RecastConfig | None = None,
    *,
    share: Share = "block",
    rank: int | None = None,
    norms: bool = True,
) -> TemplateBank:
    """The bank ``W = W0 + sum_s c[b,s] (W_s - W0)`` of S networks fine-tuned from ``model``.

    The differences are task vectors (Ilharco et al., ICLR 2023). The tensors of a block have one
    row of coefficients, one number for each source, so that they move together: weights and biases
    of the target modules, and of the block's normalisation layers scale, shift and running
    statistics. Every tensor is a group of its own in the bank, with S templates. The start is
    ``c0 = 0``, the backbone; ``c = e_s`` is source s in all the tensors that the bank covers.

    Args:
        model: the backbone; float32, not changed.
        sources: state dicts, or models, with the backbone's names; their heads may differ.
        config: its targets, groups and sets; ``templates``, ``basis`` and ``seed`` do not apply.
        share: what has one row: a ``group`` of the configuration, a ``block``
            (``encoder_layer_3``, ``layer1.2``), a ``stage`` (``layer1``), or the whole ``model``.
        rank: keep this many leading singular directions of each weight's difference (flattened to
            ``[out, rest]``); ``None`` keeps all.
        norms: include normalisation layers. One outside every block that has targets goes with
            the target before it in model order.

    Raises:
        RecastError: no sources, one that lacks a tensor or has another shape, no targets, a
            normalisation layer that does more than its class (use ``norms=False``), or tensors
            that are not finite float32.
    """
    config = config or RecastConfig()
    if not sources:
        raise RecastError("task vectors need source networks: give at least one that is fine-tuned")
    if rank is not None and rank < 1:
        raise RecastError(f"rank is {rank}: give at least 1")
    if share not in ("group", "block", "stage", "model"):
        raise RecastError(f"unknown share {share!r}: choose group, block, stage or model")
    states = [s.state_dict() if isinstance(s, nn.Module) else s for s in sources]
    tensors = _tensors_of_rows(model, config, share, norms)
    names = list(dict.fromkeys(row for _, _, row in tensors))
    groups = [
        _group(model, states, (name, tensor, names.index(row)), rank, config.base_in_bank)
        for name, tensor, row in tensors
    ]
    return TemplateBank(
        groups=tuple(groups),
        initial=tuple(torch.zeros(len(states)) for _ in names),
        sets=config.sets,
        residual=True,
        backbone=fingerprint(model),
        meta={"source": "task-vectors", "share": share, "sources": str(len(states))},
    )


def low_rank(weights: Tensor, rank: int) -> Tensor:
    """The nearest ``weights [S, out, ...]`` of at most this rank each, as ``[out, rest]``."""
    u, s, v = torch.linalg.svd(weights.flatten(2).double(), full_matrices=False)
    kept: Tensor = (u[..., :rank] * s[..., None, :rank]) @ v[..., :rank, :]
    return kept.float().reshape(weights.shape)


def stage_of(name: str) -> str:
    """Up to the first component with a digit: ``layer1``, ``encoder.layers.encoder_layer_3``."""
    parts = name.split(".")
    for end, part in enumerate(parts, 1):
        if any(character.isdigit() for character in part):
            return ".".join(parts[:end])
    return ""


def block_of(name: str) -> str:
    """The stage and the number that follows it: ``layer1.2``; the stage where none does."""
    stage = stage_of(name)
    following = name[len(stage) + 1 :].split(".")[0] if stage else ""
    return f"{stage}.{following}" if following.isdigit() else stage


_KEYS: Mapping[Share, Callable[[str], str]] = {
    "group": lambda name: "",
    "block": block_of,
    "stage": stage_of,
    "model": lambda name: "model",
}


def _group(
    model: nn.Module,
    states: Sequence[Mapping[str, Tensor]],
    place: tuple[str, str, int],
    rank: int | None,
    with_base: bool,
) -> TemplateGroup:
    """The differences of one tensor, whose ``place`` is its module, name and row."""
    name, tensor, row = place
    base = base_tensor(model, name, tensor)
    deltas = torch.stack([_difference(s, i, name, tensor, base) for i, s in enumerate(states)])
    if rank is not None and base.dim() > 1:
        deltas = low_rank(deltas, rank)
    return TemplateGroup(
        name=f"{name}.{tensor}",
        modules=(name,),
        tensor=tensor,
        rows=(row,),
        templates=deltas,
        base=base.unsqueeze(0) if with_base else None,
    )


def _tensors_of_rows(
    model: nn.Module, config: RecastConfig, share: Share, norms: bool
) -> list[tuple[str, str, str]]:
    """Module, tensor and row of everything that the bank covers, in model order."""
    group_of = {name: group.name for group in find_groups(model, config) for name in group.modules}
    key = _KEYS[share]
    row_of = {name: key(name) or group_of[name] for name in group_of}
    return [
        (name, tensor, row)
        for name, row in _members(model, row_of, norms).items()
        for tensor in difference_tensors(model.get_submodule(name))
    ]


def _members(model: nn.Module, row_of: Mapping[str, str], norms: bool) -> dict[str, str]:
    """Rows of targets and normalisation layers, in model order."""
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    rows = dict(row_of)
    for name, module in model.named_modules():
        if norms and isinstance(module, NORMS) and difference_tensors(module):
            check_replaceable(model, name, difference_tensors(module)[0])
            rows[name] = row_of[_companion(name, list(row_of), order)]
    return dict(sorted(rows.items(), key=lambda item: order[item[0]]))


def _companion(norm: str, targets: list[str], order: Mapping[str, int]) -> str:
    """The target that a normalisation layer goes with: of its block, else stage, else of all."""
    for key in (block_of, stage_of):
        near = [target for target in targets if key(target) == key(norm) != ""]
        if near:
            targets = near
            break
    before = [target for target in targets if order[target] < order[norm]]
    return max(before, key=order.__getitem__) if before else min(targets, key=order.__getitem__)


def difference_tensors(module: nn.Module, statistics: bool = True) -> tuple[str, ...]:
    """The names of the tensors of a target or normalisation layer that a difference may have.

    Args:
        module: such a layer.
        statistics: count a BatchNorm's running mean and variance among them.
    """
    if isinstance(module, nn.MultiheadAttention):
        names: tuple[str, ...] = ("in_proj_weight", "in_proj_bias")
    elif isinstance(module, NORMS):
        names = ("weight", "bias", *(_STATISTICS if statistics else ()))
    else:
        assert weight_name(module) == "weight"
        names = ("weight", "bias")
    return tuple(name for name in names if isinstance(getattr(module, name, None), Tensor))


def base_tensor(model: nn.Module, name: str, tensor: str) -> Tensor:
    """A tensor of the backbone, checked: float32, finite, on the CPU."""
    shape = tuple(getattr(model.get_submodule(name), tensor).shape)
    return stacked_weights(model, TargetGroup(name, (name,), tensor, shape))[0]


def _difference(
    state: Mapping[str, Tensor], index: int, name: str, tensor: str, base: Tensor
) -> Tensor:
    path = f"{name}.{tensor}"
    source = state.get(path)
    if source is None:
        raise RecastError(
            f"source {index} has no tensor {path}: give networks fine-tuned from this backbone"
        )
    if source.shape != base.shape:
        raise RecastError(
            f"{path} of source {index} has shape {list(source.shape)}, the backbone's "
            f"{list(base.shape)}: give networks fine-tuned from this backbone"
        )
    if source.is_meta:
        raise RecastError(f"{path} of source {index} is a meta tensor: load its weights first")
    delta = source.detach().cpu().float() - base
    if not bool(torch.isfinite(delta).all()):
        raise RecastError(f"{path} of source {index} holds NaN or infinity: load finite weights")
    return delta
