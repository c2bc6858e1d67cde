"""torchvision's classifiers by name; the only module here that needs torchvision at import."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision import models

from recast_core.backbones.preprocess import Preprocess
from recast_core.errors import RecastError


def load_torchvision(
    name: str, weights: str, others: Sequence[str], download: bool = True
) -> tuple[nn.Module, Preprocess, tuple[str, ...]]:
    """Build a torchvision classifier and download its weights where they are not cached.

    Args:
        name: as in ``torchvision.models.list_models()``.
        weights: a member of its weights enum, empty for the default, or ``none`` for random
            weights of a fixed seed.
        others: further names to offer when ``name`` is unknown.
        download: the weights; where ``False`` they are random, whatever ``weights`` says.

    Returns:
        The model, what its images undergo, and what its outputs mean; no names where the weights
        are to be random or do not say.

    Raises:
        RecastError: an unknown name, or weights that cannot be downloaded.
    """
    known = models.list_models(module=models)
    if name not in known:
        packaged = ", ".join(other for other in others if "_" in other)
        near = difflib.get_close_matches(name.lower(), [*known, *others], n=3, cutoff=0.4)
        raise RecastError(
            f"unknown backbone {name!r} (near names: {', '.join(near) or 'none'}): give "
            f"{packaged}, a torchvision classifier, file:PATH, module:pkg.mod:factory, hf:NAME or "
            "timm:NAME"
        )
    members: dict[str, Any] = dict(models.get_model_weights(name).__members__)
    if weights.lower() == "none":
        size = _preprocess(members["DEFAULT"]).size if "DEFAULT" in members else 224
        return _random(name), Preprocess(size), ()
    chosen = members.get(weights or "DEFAULT")
    if chosen is None:
        raise RecastError(
            f"{name} has no weights {weights or 'DEFAULT'!r}: "
            f"choose {', '.join([*members, 'none'])}"
        )
    classes = tuple(chosen.meta.get("categories") or ())
    if not download:
        return _random(name), _preprocess(chosen), classes
    try:
        model = _build(name, chosen)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecastError(
            f"cannot download the weights of {name} from {chosen.url} ({reason}): "
            "fetch that file elsewhere and give it as file:PATH"
        ) from error
    return model, _preprocess(chosen), classes


def _random(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _build(name, None)


def _build(name: str, weights: Any) -> nn.Module:
    # Without saying so, these two warn that their initialisation will change.
    options = {"init_weights": weights is None} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = models.get_model(name, weights=weights, **options)
    return model


def _preprocess(weights: Any) -> Preprocess:
    transforms = weights.transforms()
    return Preprocess(int(transforms.crop_size[0]), tuple(transforms.mean), tuple(transforms.std))
