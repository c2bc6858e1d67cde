"""What an exported task is made of."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping

import safetensors.torch
import torch
from torch import nn


def in_place_of(own: nn.Module, head: nn.Linear) -> nn.Module:
    """``head`` in the structure of the backbone's classifier, where that adds nothing but names."""
    if not isinstance(own, nn.Sequential):
        return head
    layers = dict(own.named_children())
    linear = [key for key, layer in layers.items() if isinstance(layer, nn.Linear)]
    silent = all(isinstance(x, nn.Linear | nn.Dropout | nn.Identity) for x in layers.values())
    if len(linear) != 1 or not silent:
        return head
    classifier = copy.deepcopy(own)
    setattr(classifier, linear[0], head)
    return classifier


def state_bytes(model: nn.Module, suffix: str, metadata: Mapping[str, str] | None) -> bytes:
    """A model's state dict as the bytes of a file with this suffix."""
    state = {key: t.detach().cpu().contiguous().clone() for key, t in model.state_dict().items()}
    if suffix == ".safetensors":
        return safetensors.torch.save(state, dict(metadata or {}))
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
