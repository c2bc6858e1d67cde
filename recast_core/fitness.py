"""Whether a bank fits a backbone: its modules before attaching, its logits afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from recast_core.bank import Group, TemplateBank
from recast_core.classifier import locate_head
from recast_core.coefficients import Coefficients
from recast_core.errors import RecastError, in_a_line
from recast_core.layers import check_replaceable
from recast_core.mimicry import fingerprint
from recast_core.trial import on_trial, output_tensor, try_inputs, unwrapped

# Kernels differ in their last bits, on a GPU in more; a forward that was lost shows in the first.
_TOLERANCE = 1e-3
# How far from the start coefficients are for the comparison.
_STEP = 0.1


@dataclass(frozen=True, eq=False)
class Trial:
    """What a backbone makes of an example with a bank's weights written in.

    Attributes:
        example: the input.
        vector: coefficients ``[D]`` that the weights were combined by.
        wanted: the backbone's logits.
    """

    example: Tensor
    vector: Tensor
    wanted: Tensor


class Attached(Protocol):
    """What ``attach`` made."""

    backbone: nn.Module
    head: nn.Module
    coefficients: Coefficients


def check_fits(model: nn.Module, bank: TemplateBank) -> None:
    """Refuse a backbone whose modules are not those that the bank was made for.

    Raises:
        RecastError: names the first module that does not match.
    """
    for group in bank.groups:
        for name in group.modules:
            _check_module(model, name, group)
    if bank.backbone and bank.backbone != (found := fingerprint(model)):
        if found != fingerprint(model):
            raise RecastError(
                "the model writes into its buffers or parameters whenever it runs, so that one "
                "task would move another: let it do that in training mode only"
            )
        raise RecastError(
            f"the bank was made for backbone {bank.backbone}, this one is {found}: load the "
            "backbone that it names, or mimic this one"
        )


def choose_head(
    model: nn.Module, bank: TemplateBank, head: str | None, example: Tensor | None
) -> str:
    """The name of the classifier; empty where the model gives features.

    Raises:
        RecastError: no classifier of that name, or none that could be found.
    """
    if head:
        try:
            model.get_submodule(head)
        except AttributeError:
            raise RecastError(
                f"the model has no module {head!r}: give the dotted name of its classifier"
            ) from None
    if head is not None:
        return head
    targets = {name for group in bank.groups for name in group.modules}
    found = locate_head(model, example)
    if found.last in targets or found.name in targets:
        return ""
    if found.name is None:
        raise RecastError(
            f"the model has no classifier that could be found ({found.why}): name it with "
            'attach(model, bank, head=NAME), or say head="" for a model that gives features'
        )
    return found.name


def reference(model: nn.Module, bank: TemplateBank, example: Tensor | None) -> Trial | None:
    """Run ``model`` with weights that the bank combines, somewhat off its start.

    ``None`` where no example is given and none of the guessed ones runs. The start may be lossy;
    that the target layers compute what their modules did must hold all the same, and off the start
    it shows in the residual form too.
    """
    inner, prefix = unwrapped(model)
    signs = torch.arange(bank.sent) % 2 * 2 - 1
    vector = bank.initial_vector + _STEP * signs
    combined = _combined(model, bank, vector)
    weights = {name.removeprefix(prefix): tensor for name, tensor in combined.items()}
    results: list[Tensor] = []

    def run(images: Tensor) -> None:
        output = functional_call(inner, weights, (images,), tie_weights=False)
        results[:] = [output_tensor(output)]

    with on_trial(inner):
        if example is None:
            example = try_inputs(inner, run)
            return None if example is None else Trial(example, vector, results[0])
        try:
            run(example)
        except RecastError:
            raise
        except Exception as error:  # a stranger's forward
            raise RecastError(
                f"the model fails on the example ({in_a_line(error)}): give an input that it takes"
            ) from error
    return Trial(example, vector, results[0])


def _combined(model: nn.Module, bank: TemplateBank, vector: Tensor) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    rows = vector.to(device).split([row.numel() for row in bank.initial])
    found: dict[str, Tensor] = {}
    for group in bank.groups:
        templates = group.templates.to(device).flatten(1)
        for index, (name, number) in enumerate(zip(group.modules, group.rows, strict=True)):
            row, base = rows[number], torch.zeros(group.shape, device=device)
            if bank.residual:
                row = row - bank.initial[number].to(device)
                base = getattr(model.get_submodule(name), group.tensor).detach()
            if group.base is not None:
                base = group.base[index].to(device)
            mixed = base + (row @ templates).reshape(group.shape)
            variance = group.tensor == "running_var"
            found[f"{name}.{group.tensor}"] = mixed.clamp_min(0.0) if variance else mixed
    return found


def compare(net: Attached, trial: Trial) -> None:
    """Refuse an attached model that does not compute what its backbone did.

    Raises:
        RecastError: it fails, or its logits differ.
    """
    inner, _ = unwrapped(net.backbone)
    try:
        with on_trial(inner), net.coefficients.temporarily(trial.vector):
            features = output_tensor(inner(trial.example))
            found = output_tensor(net.head(features)).reshape(trial.wanted.shape)
    except Exception as error:  # a stranger's forward
        raise RecastError(
            "the model does not run with its targets and classifier replaced "
            f"({in_a_line(error)}): leave out the targets that other modules read, or name the "
            "classifier with head=NAME"
        ) from error
    difference = float((found - trial.wanted).abs().max())
    scale = float(trial.wanted.abs().max())
    if not difference <= _TOLERANCE * scale:
        _refuse_random(net, trial, found)
        raise RecastError(
            f"the attached model does not compute what the backbone does: logits differ by "
            f"{difference:.2g} of {scale:.2g}: leave out targets whose weights other modules use, "
            "or name the classifier with head=NAME"
        )


def _refuse_random(net: Attached, trial: Trial, found: Tensor) -> None:
    """Refuse a model whose answers to one example differ among themselves."""
    inner, _ = unwrapped(net.backbone)
    with on_trial(inner), net.coefficients.temporarily(trial.vector):
        again = output_tensor(net.head(output_tensor(inner(trial.example)))).reshape(found.shape)
    if not torch.equal(again, found):
        raise RecastError(
            "the model gives other logits each time for the same images (dropout, noise or "
            "statistics in evaluation mode): let it draw nothing at random and keep nothing there"
        )


def _check_module(model: nn.Module, name: str, group: Group) -> None:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise RecastError(
            f"the bank does not match the model: it has no module {name!r}; load the backbone that "
            "the bank was made for"
        ) from None
    tensor = getattr(module, group.tensor, None)
    if not isinstance(tensor, Tensor):
        raise RecastError(
            f"the bank does not match the model: module {name!r} "
            f"({type(module).__name__}) has no {group.tensor}; load the backbone that the bank was "
            "made for"
        )
    if tuple(tensor.shape) != group.shape:
        raise RecastError(
            f"the bank does not match the model: {name}.{group.tensor} has shape "
            f"{list(tensor.shape)}, the bank's templates {list(group.shape)}"
        )
    if tensor.is_meta or tensor.dtype != torch.float32:
        state = "a meta tensor" if tensor.is_meta else str(tensor.dtype)
        raise RecastError(f"{name}.{group.tensor} is {state}: load float32 weights first")
    check_replaceable(model, name, group.tensor)
