"""A task as ONNX: merged, or as a model whose coefficients and head are inputs."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recast_core.errors import RecastError, in_a_line
from recast_core.files import read_text, write_atomically
from recast_core.model import RecastModel
from recast_core.trial import output_tensor

# Between what PyTorch and onnxruntime compute, relative to the largest number.
AGREEMENT = 1e-4
MODEL = "model.onnx"
# Images of a batch: torch 2.6 cannot say a number without an end.
_MANY = 2**31 - 1


class _Tensors(nn.Module):
    """A model whose forward returns a tensor, whatever it wraps it in."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return output_tensor(self.model(images))


class _Switched(nn.Module):
    """An attached model that is told its task with each batch."""

    def __init__(self, net: RecastModel) -> None:
        super().__init__()
        self.net, self.sets = net, net.bank.sets

    def forward(self, images: Tensor, coefficients: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        flat = coefficients.repeat(self.sets)
        tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if tracing:  # where functional_call is refused
            with _in_place_of(self.net.coefficients, "flat", flat):
                features = self.net(images)
        else:
            told = {"coefficients.flat": flat}
            features = torch.func.functional_call(self.net, told, (images,))
        return nn.functional.linear(features, weight, bias)


@contextlib.contextmanager
def _in_place_of(module: nn.Module, name: str, tensor: Tensor) -> Iterator[None]:
    """A tensor in the place of a parameter."""
    parameter = module._parameters.pop(name)
    setattr(module, name, tensor)
    try:
        yield
    finally:
        delattr(module, name)
        module._parameters[name] = parameter


def write_merged(
    model: nn.Module, example: Tensor, path: Path, about: Mapping[str, str]
) -> dict[str, Any]:
    """Write a plain model: ``images`` ``[n, C, H, W]`` to ``logits`` ``[n, classes]``.

    Args:
        model: in evaluation mode, on the CPU.
        example: two images as it takes them.
        path: ends in ``.onnx``.
        about: metadata.

    Returns:
        Its bytes, and how far onnxruntime is from PyTorch where it is installed.

    Raises:
        RecastError: packages of the extra ``onnx`` are missing, a model that ONNX cannot say, or
            one that computes something else there.
    """
    return _write(_Tensors(model), {"images": example}, path, about)


def write_switched(
    net: RecastModel,
    head: nn.Linear,
    example: Tensor,
    folder: Path,
    name: str,
    about: Mapping[str, str],
) -> dict[str, Any]:
    """Write the bank's model once, and the task as the kilobytes that switch it.

    ``model.onnx`` takes ``images``, ``coefficients`` ``[D]``, ``weight`` ``[C, d]`` and ``bias``
    ``[C]``; the last three are the arrays of ``NAME.npz``.

    Args:
        net: attached, with the task's coefficients.
        head: the task's classifier.
        example: two images.
        folder: of this bank alone.
        name: of the task.
        about: metadata; ``bank`` and ``backbone`` say whether a model there is this one.

    Raises:
        RecastError: as ``write_merged``, or a folder with the model of another bank.
    """
    told = {
        "coefficients": net.coefficients.sent().detach().cpu(),
        "weight": head.weight.detach().cpu(),
        "bias": torch.zeros(head.out_features) if head.bias is None else head.bias.detach().cpu(),
    }
    beside, model = folder / "model.json", folder / MODEL
    own = {key: about[key] for key in ("backbone", "bank")}
    found = {"bytes": model.stat().st_size} if model.is_file() else {}
    if found and (not beside.is_file() or json.loads(read_text(beside)) != own):
        raise RecastError(f"{folder} holds the model of another bank: name another folder")
    if not found:
        plain = net.copy()
        plain.head = nn.Identity()
        found = _write(_Switched(plain), {"images": example, **told}, model, about)
        write_atomically(beside, json.dumps(own).encode())
    buffer = io.BytesIO()
    classes = np.array(json.loads(about.get("classes", "[]")), dtype=np.str_)
    arrays: dict[str, Any] = {"classes": classes, **{k: v.numpy() for k, v in told.items()}}
    np.savez_compressed(buffer, **arrays)
    path = folder / f"{name}.npz"
    write_atomically(path, buffer.getvalue())
    return found | {"task": str(path), "task_bytes": path.stat().st_size}


@torch.no_grad()
def _write(
    module: nn.Module, inputs: Mapping[str, Tensor], path: Path, about: Mapping[str, str]
) -> dict[str, Any]:
    content = _exported(module.eval(), inputs)
    found: dict[str, Any] = {"bytes": len(content), "difference": None}
    if find_spec("onnxruntime") is not None:
        found["difference"] = _difference(content, module, inputs)
        if not found["difference"] <= AGREEMENT:
            raise RecastError(
                f"the model computes something else in onnxruntime (by {found['difference']:.1e} "
                "of its largest number): export it as .safetensors"
            )
    write_atomically(path, _described(content, about))
    return found


def _exported(module: nn.Module, inputs: Mapping[str, Tensor]) -> bytes:
    for name in ("onnx", "onnxscript"):
        if find_spec(name) is None:
            raise RecastError(f"ONNX needs {name}: `pip install 'recast-fl[onnx]'`")
    quiet = logging.getLogger("torch.onnx")
    before = quiet.level
    quiet.setLevel(logging.CRITICAL)
    try:
        try:
            return _exported_by(module, inputs, dynamo=True)
        except Exception:  # torch 2.6 cannot say a frozen BatchNorm in this way
            return _exported_by(module, inputs, dynamo=False)
    except Exception as error:  # the exporters' many kinds
        reason = in_a_line(error, 200)
        raise RecastError(
            f"this model cannot be said in ONNX ({reason}): export it as .safetensors"
        ) from error
    finally:
        quiet.setLevel(before)


def _exported_by(module: nn.Module, inputs: Mapping[str, Tensor], *, dynamo: bool) -> bytes:
    """By PyTorch's exporter, or by the older one that traces."""
    buffer: Any = io.BytesIO()
    batch = {0: torch.export.Dim("n", max=_MANY)}
    dynamic: dict[str, Any] = {"dynamic_axes": {"images": {0: "n"}, "logits": {0: "n"}}}
    if dynamo:
        dynamic = {"dynamic_shapes": tuple(batch if n == "images" else None for n in inputs)}
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                buffer,
                input_names=[*inputs],
                output_names=["logits"],
                dynamo=dynamo,
                verbose=False,
                **dynamic,
            )
    return bytes(buffer.getvalue())


def _difference(content: bytes, module: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """The largest difference in onnxruntime, of three rows where the example has two."""
    import onnxruntime

    rows = torch.cat([inputs["images"], inputs["images"][:1].flip(-1)])
    given = {**inputs, "images": rows}
    wanted = module(*given.values()).numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
    return float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-9))


def _described(content: bytes, about: Mapping[str, str]) -> bytes:
    import onnx

    model = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(model, dict(about))
    described: bytes = model.SerializeToString()
    return described
