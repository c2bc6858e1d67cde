"""``recast tasks export``: a learned task as a plain torch model in one safetensors file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from client.data import load_dataset, parse_task
from client.data.class_ids import dataset_in_task_ids
from experiments.command import onnx_file
from experiments.command.deployed import Deployed, deploy, has_head
from experiments.command.export_forms import form_of
from experiments.command.run_folder import Learned, learned, opened, settings_of
from experiments.command.sight import Sight
from recast_core.backbones.architectures import (
    complete,
    infer_architecture,
    looks_like_architecture,
    parse_architecture,
)
from recast_core.errors import RecastError
from recast_core.files import write_atomically
from recast_core.fitting import features_of
from recast_core.heads import head_kind
from recast_core.heads.ridge import ridge_head
from recast_core.library import TaskLibrary
from recast_core.library.task import SUFFIX, file_name
from recast_core.model import replace_module

logger = logging.getLogger("recast.data")
_CLASSIFIERS = {
    "backbone": "deployed classifier",
    "kept": "earlier task's classifier",
    "merged": "head that the run's server merged",
}


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A ridge head on a task's features.

    Attributes:
        head: ``Linear(d, C)``.
        classes: the names of its C classes.
        accuracy: on the data's own test images, a fraction.
        sight: how the images were made ready.
    """

    head: nn.Linear
    classes: tuple[str, ...]
    accuracy: float
    sight: Sight


@dataclass(frozen=True, eq=False)
class _Content:
    """What goes into the file.

    Attributes:
        model: plain; without its classifier where nobody knows one.
        state: of the plain model, likewise.
        architecture: that builds it.
        head: ``backbone`` or ``kept`` (an earlier task's), ``merged`` (by the run's server),
            ``ridge`` (fitted here) or ``none``.
        classes: the names of its classes, empty where nobody knows them.
        accuracy: on the data's own test images, a fraction.
        said: about the classifier, for a person.
        sight: how the images were made ready; ``None`` without data.
        linear: the classifier alone, where there is one.
        recomputed: the model has BatchNorm statistics of the data.
    """

    model: nn.Module
    state: Mapping[str, Tensor]
    architecture: str
    head: str
    classes: tuple[str, ...]
    accuracy: float | None
    said: str
    sight: Sight | None = None
    linear: nn.Linear | None = None
    recomputed: bool = False


def export(
    name: str,
    output: Path,
    data: str,
    run: Path | None,
    form: str = "",
    *,
    skip_unreadable: bool = False,
) -> dict[str, Any]:
    """Write the merged model of a task to ``output`` and return what it is as JSON values.

    A task that kept a classifier, the deployed one or an earlier task's, gives a whole model, with
    BatchNorm statistics of ``data`` where its clients recomputed them; so does one whose head the
    server merged. The heads of another federation stay with its clients, so the classifier is a
    ridge head fitted here on the images of ``data``; without them the file holds the model up to
    its features.

    Raises:
        RecastError: no such run or task, data that cannot be used, another suffix, or no ``data``
            where the server has yet to merge the head.
    """
    form = form_of(output, form)
    with opened(run) as (registry, found):
        model = learned(registry, found, name)
    about = _about(model, name)
    if has_head(model, found.config):
        content = _kept(deploy(model, found.config, data, skip_unreadable=skip_unreadable), model)
    elif data:
        content = _fitted(model, data, skip_unreadable=skip_unreadable)
    elif head_kind(settings_of(found.config).head_kind).travels:
        raise RecastError(
            f"the server has merged no head for what task {name!r} is now, which it does when the "
            "task is evaluated: start its command again and export it then, or give --data DATA "
            "to fit a ridge head"
        )
    else:
        content = _features(model)
    about |= (content.sight or _sight_of(model.task.source)).write()
    about |= {"head": content.head, "architecture": content.architecture}
    if content.classes:
        about["classes"] = json.dumps(content.classes)
    beside: dict[str, Any] = {}
    if form == "safetensors":
        write_atomically(output, safetensors.torch.save(dict(content.state), about))
        size = output.stat().st_size
        print(f"{output}: {size:,} bytes, {content.architecture}")
    else:
        if form == "onnx-tasks":
            with opened(run) as (registry, found):
                again = learned(registry, found, name)
            beside = _switched(again, content, output, about)
        else:
            example = model.backbone.preprocess.example(2)
            beside = onnx_file.write_merged(content.model, example, output, about)
        size = beside["bytes"]
        print(f"{output}: {size:,} bytes, ONNX for onnxruntime")
    print(content.said + (f": {content.accuracy:.1%} of {data}'s test images" if data else ""))
    return {
        "path": str(output),
        "bytes": size,
        "architecture": content.architecture,
        "head": content.head,
        "classes": list(content.classes) if content.head != "none" else None,
        "test_accuracy": content.accuracy,
        **beside,
    }


def _about(model: Learned, name: str) -> dict[str, str]:
    """What the file says of itself, whatever its head."""
    backbone = model.backbone
    return {
        "format": "recast.export/1",
        "task": name,
        "backbone": backbone.spec,
        "bank": model.bank.sha256.hex(),
        "size": str(backbone.preprocess.size),
        "mean": ",".join(map(str, backbone.preprocess.mean)),
        "std": ",".join(map(str, backbone.preprocess.std)),
        "head_name": backbone.head,
    }


def _switched(
    model: Learned, content: _Content, folder: Path, about: Mapping[str, str]
) -> dict[str, Any]:
    """Write the bank's model and this task's numbers."""
    if content.recomputed:
        raise RecastError(
            "BatchNorm statistics of DATA are no part of a switch: leave out --data, or export "
            "with --format onnx"
        )
    head = content.linear
    if head is None:
        raise RecastError("a switch needs the task's head: give --data DATA to fit one")
    name = file_name(model.task.name).removesuffix(SUFFIX)
    example = model.backbone.preprocess.example(2)
    found = onnx_file.write_switched(model.net, head, example, folder, name, about)
    print(f"{found['task']}: {found['task_bytes']:,} bytes switch {folder / onnx_file.MODEL} to it")
    return found


def _kept(found: Deployed, model: Learned) -> _Content:
    state, last = _state(found.model), found.model.get_submodule(model.backbone.head)
    linear = last if isinstance(last, nn.Linear) else None
    which = "kept" if model.kept else "merged" if model.merged else "backbone"
    said = f"the {_CLASSIFIERS[which]} of {len(found.classes)} classes"
    if found.recomputed:
        said += ", BatchNorm statistics of the data's images"
    built = architecture(model.backbone.spec, state)
    return _Content(
        found.model,
        state,
        built,
        which,
        found.classes,
        found.accuracy,
        said,
        found.sight,
        linear,
        found.recomputed,
    )


def _fitted(model: Learned, data: str, *, skip_unreadable: bool) -> _Content:
    fitted = fit_head(model, data, skip_unreadable=skip_unreadable)
    library = TaskLibrary(model.bank)
    library.add(model.task.name, model.net.coefficients.sent(), fitted.head, fitted.classes)
    plain = library.export(model.net, model.task.name)
    state = _state(plain)
    said = f"ridge head of {len(fitted.classes)} classes"
    built = architecture(model.backbone.spec, state)
    return _Content(
        plain,
        state,
        built,
        "ridge",
        fitted.classes,
        fitted.accuracy,
        said,
        fitted.sight,
        fitted.head,
    )


def _features(model: Learned) -> _Content:
    # The classifier that the backbone came with knows other classes: it is left out, and kept
    # until then because it shows which architecture this is.
    plain = model.net.merge()
    state = _state(plain)
    built, prefix = architecture(model.backbone.spec, state), f"{model.backbone.head}."
    state = {key: tensor for key, tensor in state.items() if not key.startswith(prefix)}
    replace_module(plain, model.backbone.head, nn.Identity())
    said = (
        "no classifier: the heads of a federation are its clients', so this is the model up to its "
        "features; give --data DATA to fit a ridge head on it"
    )
    return _Content(plain, state, built, "none", model.classes, None, said)


@torch.no_grad()
def fit_head(model: Learned, data: str, *, skip_unreadable: bool = False) -> FittedHead:
    """Fit a ridge head on the training images of ``data``, a DATA specification.

    Its classes are the task's in the order of their ids, unless the data are of other ones.
    """
    preprocess = model.backbone.preprocess
    spec = parse_task(data)
    images = load_dataset(spec, preprocess.size, skip_unreadable=skip_unreadable)
    if len(set(images.y_train.tolist())) < 2:
        raise RecastError(f"{data} has images of one class only: name at least two classes")
    try:
        images = dataset_in_task_ids(images, model.classes)
    except RecastError as error:
        logger.warning("the head is of the data's own classes: %s", error)
    labels = torch.from_numpy(images.y_train)
    features = features_of(model.net, preprocess(images.x_train))
    head = ridge_head(features, labels, len(images.classes))
    predicted = head(features_of(model.net, preprocess(images.x_test))).argmax(1)
    accuracy = float((predicted == torch.from_numpy(images.y_test)).float().mean())
    return FittedHead(head, images.classes, accuracy, Sight.of(spec.data, images.grey_bits))


def _sight_of(source: str) -> Sight:
    """Of a task's own data; of files where it is the clients' own."""
    return Sight.of(parse_task(source).data) if source else Sight()


def architecture(spec: str, state: Mapping[str, Tensor]) -> str:
    """What builds a model for ``state``: ``file:PATH@`` takes it, unless it has a colon.

    ``torchvision:NAME`` is for ``torchvision.models.get_model``, ``module:...`` the user's own.
    """
    kind, _, rest = spec.partition(":")
    given = rest.rpartition("@")[2]
    if kind == "file" and looks_like_architecture(given) and not Path(rest).is_file():
        return str(complete(parse_architecture(given), state))
    try:
        return str(infer_architecture(state))
    except RecastError:
        return spec if kind in ("module", "hf", "timm") else f"torchvision:{kind}"


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {key: t.detach().cpu().contiguous().clone() for key, t in model.state_dict().items()}
