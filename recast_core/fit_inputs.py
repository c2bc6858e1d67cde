"""What people hand to ``fit``: arrays, lists, loaders, one-hot labels, made into two tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from recast_core.errors import RecastError, in_a_line
from recast_core.model import RecastModel
from recast_core.recipe import Recipe

_IMAGES = ("pixel_values", "images", "image", "img", "x", "input_ids")
_END = object()
_LABELS = ("labels", "label", "targets", "target", "y")


def fit_inputs(
    net: RecastModel, images: object, labels: object, classes: int
) -> tuple[Tensor, Tensor]:
    """Images and labels as training takes them, on the device of ``net``.

    Args:
        net: attached and not merged.
        images: floats ``[N, ...]`` as the backbone takes them: a tensor, an array or a list of
            such; or, with ``labels`` ``None``, a DataLoader or Dataset of pairs.
        labels: class ids ``[N]`` or ``[N, 1]`` of any type that holds whole numbers, or one-hot
            rows ``[N, C]``.
        classes: C.

    Returns:
        Floating-point images as float32, others as they are; int64 labels ``[N]``.

    Raises:
        RecastError: what cannot be converted without a guess, in one line.
    """
    if labels is None:
        images, labels = _of_pairs(images)
    elif isinstance(images, DataLoader | Dataset):
        raise RecastError("a DataLoader gives its own labels: call fit(net, loader, None, classes)")
    x, y = _tensor(images, "images"), _class_ids(_tensor(labels, "labels"), classes)
    if x.dtype in (torch.uint8, torch.bool):
        raise RecastError(
            f"images are {x.dtype}: give what the backbone takes, such as "
            "backbone.preprocess(images) or images / 255 normalised as it was trained"
        )
    if x.dim() == 0 or len(x) != len(y):
        count = len(x) if x.dim() else "no row of"
        raise RecastError(f"{count} images and {len(y)} labels: give one label for each image")
    x = x.to(net.device, torch.float32) if x.is_floating_point() else x.to(net.device)
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise RecastError("images hold NaN or infinity: leave those rows out")
    if len(x):
        _try_features(net, x[:2])
    return x, y.to(net.device)


def class_count(data: object) -> int:
    """How many classes a data set says that it has, also within a DataLoader or a subset.

    Raises:
        RecastError: it does not say.
    """
    while data is not None:
        names = getattr(data, "classes", None)
        if isinstance(names, Sequence) and not isinstance(names, str) and names:
            return len(names)
        data = getattr(data, "dataset", None)
    raise RecastError("the number of classes is not known: give it, as in classes=10")


def whole(name: str, value: object, least: int) -> int:
    """``value`` as a whole number of at least ``least``.

    Raises:
        RecastError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise RecastError(f"{name} is {value!r}: give a whole number of {least} or more")
    return int(value)


def check_recipe(recipe: Recipe) -> None:
    """Refuse what would train nothing.

    Raises:
        RecastError: a batch that teaches nothing, or numbers that are none of epochs, images or
            a rate. No epoch is a head alone.
    """
    whole("epochs", recipe.epochs, 0)
    if whole("batch", recipe.batch, 1) < 4:
        raise RecastError(
            f"batch is {recipe.batch}: a step teaches nothing with fewer than 4 images, of which "
            "one half is scored by the other"
        )
    rate = recipe.learning_rate
    if not isinstance(rate, int | float) or not 0 <= rate < float("inf"):
        raise RecastError(f"learning_rate is {rate!r}: give a number of 0 or more")


@contextmanager
def training(net: RecastModel) -> Iterator[None]:
    """Gradients within the block, whatever is set around it.

    Raises:
        RecastError: ``net`` is merged, has a task in use or was attached within inference_mode.
    """
    if not isinstance(net, RecastModel):
        raise RecastError(
            f"a {type(net).__name__} has no coefficients to fit: attach it to a bank first, "
            "net = attach(model, bank)"
        )
    net.refuse_merged()
    net.coefficients.refuse_in_use()
    if any(tensor.is_inference() for tensor in (*net.parameters(), *net.buffers())):
        raise RecastError(
            "the model was made within torch.inference_mode(), where nothing can be trained "
            "later: load and attach it outside, or use torch.no_grad()"
        )
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _of_pairs(data: object) -> tuple[object, object]:
    """All images and labels of a loader or dataset."""
    if not isinstance(data, Iterable | Dataset) or isinstance(data, Tensor | np.ndarray):
        raise RecastError("no labels: give them beside the images, or a DataLoader of pairs")
    single = isinstance(data, Dataset) and not isinstance(data, DataLoader)
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for item in _read(data):
        image, label = _pair(item)
        x, y = _tensor(image, "images"), _tensor(label, "labels")
        images.append(x.unsqueeze(0) if single else x)
        labels.append(y.unsqueeze(0) if single else y)
    if not images:
        raise RecastError("no images to learn from: the loader gives none")
    try:
        return torch.cat(images), torch.cat(labels)
    except RuntimeError as error:
        raise RecastError(
            "images or labels of the loader differ in shape: let it resize and collate them"
        ) from error


def _items(data: Iterable[object] | Dataset[object]) -> Iterator[object]:
    if isinstance(data, Iterable):
        yield from data
    else:
        yield from (data[index] for index in range(len(data)))  # type: ignore[arg-type]


def _read(data: Iterable[object] | Dataset[object]) -> Iterator[object]:
    """What it gives; where that fails, one line that says at which item and why."""
    items, place = _items(data), 0
    while True:
        try:
            item = next(items, _END)
        except RecastError:
            raise
        except Exception as error:  # a stranger's data set
            reason = in_a_line(error)
            raise RecastError(
                f"the data set fails at item {place} ({reason}): repair or leave out what it reads "
                "there, and let it give tensors"
            ) from error
        if item is _END:
            return
        yield item
        place += 1


def _pair(item: object) -> tuple[object, object]:
    if isinstance(item, Mapping):
        image = next((item[key] for key in _IMAGES if key in item), None)
        label = next((item[key] for key in _LABELS if key in item), None)
        if image is not None and label is not None:
            return image, label
        names = ", ".join(map(str, item))
        raise RecastError(f"batches have {names}: name images {_IMAGES[0]} and labels {_LABELS[0]}")
    if isinstance(item, list | tuple) and len(item) == 2:
        return item[0], item[1]
    kind = f"{type(item).__name__} of {len(item)}" if isinstance(item, list | tuple) else ""
    raise RecastError(
        f"the loader gives a {kind or type(item).__name__}: let it give pairs of images and labels"
    )


def _tensor(value: object, what: str) -> Tensor:
    """``value`` as a tensor that no inference mode holds."""
    try:
        if isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
            value = torch.stack([torch.as_tensor(v) for v in value])
        elif isinstance(value, list | tuple) and value and isinstance(value[0], np.ndarray):
            value = np.stack(value)  # of which torch makes a tensor at once, and without a warning
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value)
        if isinstance(value, np.ndarray) and value.dtype.byteorder not in "=|":
            value = value.astype(value.dtype.newbyteorder("="))
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = getattr(value, "dtype", type(value).__name__)
        hint = "whole numbers from 0, one for each class" if what == "labels" else "a float tensor"
        raise RecastError(f"cannot read {what} of type {kind}: give {hint}") from error
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        kind = "quantised" if tensor.is_quantized else "meta" if tensor.is_meta else "sparse"
        raise RecastError(f"{what} are a {kind} tensor: give a dense one of numbers")
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _class_ids(labels: Tensor, classes: int) -> Tensor:
    """Int64 ids ``[N]`` of ids or one-hot rows."""
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if labels.dtype in (torch.uint16, torch.uint32, torch.uint64):
        labels = labels.long()  # which nothing else can be compared with
    if labels.is_complex() or not bool((labels == labels.long()).all()):
        raise RecastError(
            f"labels are {labels.dtype} that are not whole: give class ids, or one-hot rows of 0 "
            "and 1"
        )
    labels = labels.long()
    if labels.dim() == 2:
        hot = bool(((labels == 0) | (labels == 1)).all()) and bool((labels.sum(1) == 1).all())
        if not hot or labels.shape[1] != classes:
            raise RecastError(
                f"labels of shape {list(labels.shape)} for {classes} classes: give [N] class ids, "
                f"or one-hot rows [N, {classes}]"
            )
        labels = labels.argmax(1)
    if labels.dim() != 1:
        raise RecastError(f"labels of shape {list(labels.shape)}: give one class id for each image")
    return labels


@torch.no_grad()
def _try_features(net: RecastModel, images: Tensor) -> None:
    try:
        features = net.features(images)
    except RecastError:
        raise
    except Exception as error:  # a stranger's forward
        reason = in_a_line(error)
        raise RecastError(
            f"the model does not take images of shape {list(images.shape[1:])} ({reason}): give "
            "them as [N, channels, height, width], prepared as the backbone takes them"
        ) from error
    if features.dim() != 2 or len(features) != len(images):
        raise RecastError(
            f"the classifier of this model takes features of shape {list(features.shape)}, not "
            "one row for each image: name its last Linear with attach(model, bank, head=NAME)"
        )
