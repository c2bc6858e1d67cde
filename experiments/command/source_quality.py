"""How faithfully, and how fast, each source of templates mimics a backbone."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from recast_core.bank import TemplateBank
from recast_core.config import RecastConfig
from recast_core.mimicry import mimic, relative_error
from recast_core.model import attach
from recast_core.sources import Source, source_kind


@dataclass(frozen=True)
class Comparison:
    """One source's bank against the backbone.

    Attributes:
        method: the source's name.
        relative_error: Frobenius norm of all differences over that of all target weights.
        cosine: mean cosine between a target weight and its reconstruction.
        feature_cosine: for each target module the mean cosine, over the images, between its
            outputs in the attached and the plain model; empty without images.
        logit_error: largest difference of a logit over the largest logit; ``None`` without images.
        seconds: wall time of making the bank, fingerprint of the backbone included.
    """

    method: str
    relative_error: float
    cosine: float
    seconds: float
    feature_cosine: Mapping[str, float] = field(default_factory=dict)
    logit_error: float | None = None


def compare_sources(
    model: nn.Module,
    config: RecastConfig | None = None,
    methods: Iterable[str] = ("closed-form", "gradient", "vae"),
    images: Tensor | None = None,
    sources: Mapping[str, Source] | None = None,
) -> list[Comparison]:
    """Make a bank by each method with the same groups and templates, and compare.

    Args:
        model: the backbone, float32; not changed.
        config: for all of them; its ``source`` does not matter. Methods that need the residual
            form get it.
        methods: names of ``recast_core.sources.SOURCES``.
        images: float32 ``[N, 3, H, W]`` to compare features on.
        sources: in place of the defaults of these names.

    Raises:
        RecastError: as ``mimic``.
    """
    config = config or RecastConfig()
    rows = []
    for method in methods:
        residual = config.residual or source_kind(method).residual
        chosen = replace(config, source=method, residual=residual)
        source = (sources or {}).get(method) or source_kind(method).of(chosen)
        began = time.perf_counter()
        bank = mimic(model, chosen, source)
        seconds = time.perf_counter() - began
        error, cosine = relative_error(model, bank)
        row = Comparison(method, error, cosine, seconds)
        if images is not None:
            features, logits = feature_cosines(model, bank, images)
            row = replace(row, feature_cosine=features, logit_error=logits)
        rows.append(row)
    return rows


@torch.no_grad()
def feature_cosines(
    model: nn.Module, bank: TemplateBank, images: Tensor
) -> tuple[dict[str, float], float]:
    """Compare an attached model with the plain one, layer by layer.

    Args:
        model: the backbone, in float32; not changed.
        bank: made for it.
        images: float32 ``[N, 3, H, W]``.

    Returns:
        For each target module the mean over images of the cosine between its flattened outputs,
        and the largest difference of a logit relative to the largest logit.
    """
    names = list(dict.fromkeys(name for group in bank.groups for name in group.modules))
    plain = copy.deepcopy(model).eval()
    expected, logits = _outputs(plain, plain, names, images)
    net = attach(plain, bank)
    found, attached = _outputs(net, net.backbone, names, images)
    cosines = {
        name: float(torch.cosine_similarity(expected[name], found[name], dim=1).mean())
        for name in names
    }
    largest = float(logits.abs().max().clamp_min(1e-30))
    return cosines, float((attached - logits).abs().max()) / largest


def _outputs(
    whole: nn.Module, within: nn.Module, names: list[str], images: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    seen: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor | tuple[Tensor, ...]) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        seen[name] = tensor.detach().reshape(len(images), -1).double()

    handles = [
        within.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: keep(name, output)
        )
        for name in names
    ]
    try:
        logits: Tensor = whole(images)
    finally:
        for handle in handles:
            handle.remove()
    return seen, logits
