"""Whether a network that was loaded computes anything, and what its file says fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from recast_core.backbones.notes import note
from recast_core.backbones.preprocess import Preprocess
from recast_core.errors import RecastError, in_a_line
from recast_core.trial import on_trial, output_tensor

_ROWS = 2


def check_finite(model: nn.Module, spec: str) -> None:
    """Refuse weights and statistics that nothing can be computed with.

    Raises:
        RecastError: NaN or infinity, or negative variances; names the tensor.
    """
    running = [(name, b) for name, b in model.named_buffers() if ".running_" in f".{name}"]
    for name, tensor in [*model.named_parameters(), *running]:
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise RecastError(
                f"{name} of backbone {spec!r} holds negative variances, so that it computes "
                "nothing: take an undamaged checkpoint"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise RecastError(
                f"{name} of backbone {spec!r} holds NaN or infinity, so that it computes nothing: "
                "take a checkpoint of before its training failed"
            )


def check_kinds(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Refuse whole numbers in the place of weights: levels, without the scale that they count in.

    Raises:
        RecastError: names the tensor.
    """
    for name, tensor in model.state_dict().items():
        own = state.get(name)
        if own is not None and tensor.is_floating_point() and not own.is_floating_point():
            raise RecastError(
                f"{name} of {what} holds {own.dtype}, which means nothing without a scale: save "
                "the float model's state_dict()"
            )


def check_outputs(model: nn.Module, head: str, classes: Sequence[str], spec: str) -> None:
    """Refuse a list of class names that is not of the classifier's outputs.

    Raises:
        RecastError: says how many there are of both.
    """
    layers = [m for m in model.get_submodule(head).modules() if isinstance(m, nn.Linear)]
    if classes and layers and len(classes) != layers[-1].out_features:
        raise RecastError(
            f"backbone {spec!r} names {len(classes)} classes for {layers[-1].out_features} outputs "
            "of its classifier: save it with a name for each output, or without names"
        )


def check_answers(model: nn.Module, preprocess: Preprocess, spec: str) -> None:
    """Run a stranger's network on two images.

    What all images have the same answer in is noted: a classifier of zeros has it, whose features
    may still be of use.

    Raises:
        RecastError: it fails on them, or its answers are not finite.
    """
    with on_trial(model):
        try:
            logits = output_tensor(model(preprocess.example(_ROWS)))
        except Exception as error:  # a stranger's forward
            raise RecastError(
                f"backbone {spec!r} fails on images of {preprocess.channels} x {preprocess.size} x "
                f"{preprocess.size} ({in_a_line(error)}): correct what it says of its images"
            ) from error
    if not bool(torch.isfinite(logits).all()):
        raise RecastError(
            f"backbone {spec!r} answers with NaN or infinity: take an undamaged checkpoint"
        )
    if torch.equal(logits, logits[:1].expand_as(logits)):
        note(
            f"{spec}: it answers the same for any image; its classifier or its layers are zeros, "
            "or were never trained"
        )


def note_unseen(model: nn.Module, path: Path) -> None:
    """Note BatchNorms that were trained and have seen no image: their statistics were lost."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms and all(map(_is_unseen, norms)) and any(map(_is_trained, norms)):
        note(
            f"{path}: its BatchNorms were trained and have the statistics of no image (means 0, "
            "variances 1), so that it answers at random: save its buffers too"
        )


def _is_unseen(norm: nn.BatchNorm2d) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        return False
    return not bool(mean.any()) and not bool((variance - 1).any())


def _is_trained(norm: nn.BatchNorm2d) -> bool:
    return norm.affine and bool(norm.bias.any())
