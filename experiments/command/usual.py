"""What ``plan`` and ``mimic`` take for targets where nobody says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from experiments.command import options
from recast_core.backbones import Backbone, load_backbone
from recast_core.config import RecastConfig
from recast_core.targets import preset_fits

_USUAL = ("mlp", "conv")


def config_for(backbone: str | Backbone, values: Mapping[str, Any]) -> RecastConfig:
    """The configuration of the options that were given: of a network without ``mlp``, ``conv``.

    Args:
        backbone: loaded, or else its name.
        values: the options.

    Raises:
        RecastError: no such backbone, or options that contradict each other.
    """
    config = options.recast_config(values)
    if {"target", "preset"} & values.keys():
        return config
    if isinstance(backbone, str):
        backbone = load_backbone(backbone, weights=False)
    fitting = (name for name in _USUAL if preset_fits(backbone.model, name))
    return replace(config, target=next(fitting, _USUAL[0]))
