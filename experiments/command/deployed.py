"""A learned task whose classifier is known here, as a plain model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.data import load_dataset, parse_task
from client.data.arrays import Dataset
from client.data.class_ids import dataset_in_task_ids
from experiments.command.run_folder import Learned, settings_of
from experiments.command.sight import Sight
from recast_core.errors import RecastError
from recast_core.library import TaskLibrary
from recast_core.statistics import adopt_statistics


@dataclass(frozen=True, eq=False)
class Deployed:
    """A plain model with the classifier that it came with.

    Attributes:
        model: coefficients, and statistics where they were recomputed, written into its weights.
        classes: the names of its classes.
        accuracy: on the data's own test images, a fraction; ``None`` without data.
        recomputed: BatchNorms hold the statistics of the data's training images.
        sight: how the images were made ready; ``None`` without data.
    """

    model: nn.Module
    classes: tuple[str, ...]
    accuracy: float | None
    recomputed: bool
    sight: Sight | None


def has_head(model: Learned, config: Mapping[str, object]) -> bool:
    """Whether the classifier is known of a task of a run with this configuration.

    It is the deployed one or an earlier task's, which the task kept, or one merged by the server.
    """
    return settings_of(config).head_kind == "backbone" or model.head is not None


def deploy(
    model: Learned, config: Mapping[str, object], data: str, *, skip_unreadable: bool = False
) -> Deployed:
    """The task's model with its classifier; used up is ``model``.

    With data, BatchNorms get the statistics of its training images where the run's clients were
    to do so and more of these images are right then: what a client of the task would use.

    Args:
        model: of a task with ``has_head``.
        config: of that run.
        data: a DATA specification of the task's domain; empty for none.
        skip_unreadable: go on without images that cannot be read.

    Raises:
        RecastError: data that cannot be used, or of other classes than the classifier's.
    """
    classes = model.classes or model.backbone.classes
    plain = _plain(model).eval()
    if not data:
        return Deployed(plain, _named(plain, classes), None, False, None)
    spec, preprocess = parse_task(data), model.backbone.preprocess
    images = load_dataset(spec, preprocess.size, skip_unreadable=skip_unreadable)
    try:
        images = dataset_in_task_ids(images, classes)
    except RecastError as error:
        raise RecastError(
            f"{data} has the classes {', '.join(images.classes)[:80]} and the task "
            f"{', '.join(classes)[:80]}: give data of the task's classes"
        ) from error
    recomputed = False
    if settings_of(config).recomputes:
        other = copy.deepcopy(plain)
        pixels = preprocess(images.x_train)
        if adopt_statistics(other, pixels) and _right(other, pixels, images) > _right(
            plain, pixels, images
        ):
            plain, recomputed = other, True
    tests = torch.from_numpy(images.y_test)
    predicted = _logits(plain, preprocess(images.x_test)).argmax(1)
    accuracy = float((predicted == tests).float().mean())
    sight = Sight.of(spec.data, images.grey_bits)
    return Deployed(plain, images.classes, accuracy, recomputed, sight)


def _plain(model: Learned) -> nn.Module:
    """The merged model with its classifier: the deployed one, or a head of the registry."""
    if model.head is None:
        return model.net.merge()
    library = TaskLibrary(model.bank)
    library.add(model.task.name, model.net.coefficients.sent(), model.head)
    return library.export(model.net, model.task.name)


def _named(plain: nn.Module, classes: tuple[str, ...]) -> tuple[str, ...]:
    if classes:
        return classes
    linears = [module for module in plain.modules() if isinstance(module, nn.Linear)]
    return tuple(f"class {index}" for index in range(linears[-1].out_features))


def _right(model: nn.Module, pixels: Tensor, images: Dataset) -> int:
    labels = torch.from_numpy(images.y_train)
    return int((_logits(model, pixels).argmax(1) == labels).sum())


@torch.no_grad()
def _logits(model: nn.Module, pixels: Tensor) -> Tensor:
    return torch.cat([model(part) for part in pixels.split(256)])
