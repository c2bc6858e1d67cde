"""Neural Mimicry: turn a pretrained model into a template bank."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from recast_core.bank import TemplateBank, TemplateGroup
from recast_core.classifier import find_head
from recast_core.config import RecastConfig
from recast_core.errors import RecastError
from recast_core.sources import Source, source_kind
from recast_core.targets import TargetGroup, find_groups
from recast_core.trial import refuse_lazy


def mimic(
    model: nn.Module, config: RecastConfig | None = None, source: Source | None = None
) -> TemplateBank:
    """A bank whose combinations reproduce ``model``'s target weights.

    Paper, section 3.2; ``config.source`` says by which method, ``recast_core.sources`` has them.
    In the residual form the bank starts at the backbone whatever the templates are; otherwise with
    fewer templates than layers it is lossy.

    Args:
        model: float32, on any device; not changed.
        config: targets, groups and templates; the default is one exact own-weight bank for the
            MLP layers.
        source: in place of the one that ``config`` names, to set its own options.

    Raises:
        RecastError: no targets, unequal groups, weights that are not finite float32, or a source
            that needs more than the backbone.
    """
    config = config or RecastConfig()
    refuse_lazy(model)
    if source is None:
        source = source_kind(config.source).of(config)
    rows: list[Tensor] = []
    groups: list[TemplateGroup] = []
    for index, target in enumerate(find_groups(model, config)):
        weights = stacked_weights(model, target)
        random = np.random.Philox(key=np.array([config.seed, index], dtype=np.uint64))
        templates, coefficients = source(weights, config.templates, random)
        if not bool(templates.any()):
            raise RecastError(
                f"the templates of {target.name} are zero, as its weights are, so that nothing can "
                "train there: leave it out of the targets, or load trained weights"
            )
        groups.append(
            TemplateGroup(
                name=target.name,
                modules=target.modules,
                tensor=target.tensor,
                rows=tuple(range(len(rows), len(rows) + len(coefficients))),
                templates=templates,
                base=weights if config.base_in_bank else None,
            )
        )
        rows.extend(coefficients)
    return TemplateBank(
        groups=tuple(groups),
        initial=tuple(rows),
        sets=config.sets,
        residual=config.residual,
        backbone=fingerprint(model),
        meta={"source": config.source} | source.meta(config),
    )


def seeded_bank(
    model: nn.Module, config: RecastConfig | None = None, seed: int = 0
) -> TemplateBank:
    """The bank of random templates that ``seed`` stands for: the same on every machine.

    Whoever has the backbone, the configuration and these 8 bytes has the bank, so it need not be
    sent. Its form is the residual one, its start zero.

    Raises:
        RecastError: as ``mimic``.
    """
    config = config or RecastConfig()
    return mimic(model, replace(config, source="seeded", seed=seed, residual=True))


def stacked_weights(model: nn.Module, group: TargetGroup) -> Tensor:
    """The group's weights on the CPU: float32 ``[L, *shape]``.

    Raises:
        RecastError: a weight that is not float32, has no data (``meta``), is not finite, or has
            another shape than its group.
    """
    tensors = []
    for name in group.modules:
        tensor = getattr(model.get_submodule(name), group.tensor).detach()
        if tensor.is_meta:
            raise RecastError(f"{name}.{group.tensor} is a meta tensor: load its weights first")
        if tensor.dtype != torch.float32:
            raise RecastError(f"{name}.{group.tensor} is {tensor.dtype}: call model.float() first")
        if not bool(torch.isfinite(tensor).all()):
            raise RecastError(f"{name}.{group.tensor} holds NaN or infinity: load finite weights")
        if tuple(tensor.shape) != group.shape:
            raise RecastError(
                f"{name}.{group.tensor} has shape {list(tensor.shape)}, others of group "
                f"{group.name!r} {list(group.shape)}: put layers of unequal shape in groups of "
                "their own"
            )
        tensors.append(tensor.cpu())
    return torch.stack(tensors)


def fingerprint(model: nn.Module) -> str:
    """Which backbone this is: 16 hexadecimal digits over every tensor but the classifier's."""
    head = find_head(model)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point() and not (head and name.startswith(f"{head}.")):
            digest.update(name.encode() + b"\0")
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def relative_error(model: nn.Module, bank: TemplateBank) -> tuple[float, float]:
    """How well the bank's start reproduces ``model``.

    Returns:
        The Frobenius norm of all differences over that of all target weights, and the mean cosine
        between a layer's weight and its reconstruction.
    """
    squared = total = 0.0
    cosines: list[float] = []
    for group in bank.groups:
        target = TargetGroup(group.name, group.modules, group.tensor, group.shape)
        weights = stacked_weights(model, target).flatten(1).double()
        start = torch.stack([bank.initial[row] for row in group.rows]).double()
        if bank.residual:
            base = weights if group.base is None else group.base.flatten(1).double()
            rebuilt = base
        else:
            rebuilt = start @ group.templates.flatten(1).double()
        squared += float((rebuilt - weights).square().sum())
        total += float(weights.square().sum())
        cosines += torch.cosine_similarity(rebuilt, weights, dim=1).tolist()
    return (squared / total) ** 0.5 if total else 0.0, sum(cosines) / len(cosines)
