"""Fit a task's coefficients on one client's images."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recast_core.descent import Featured, descend
from recast_core.errors import RecastError
from recast_core.fit_inputs import check_recipe, class_count, fit_inputs, training, whole
from recast_core.fit_progress import shown
from recast_core.heads.ridge import ridge_head
from recast_core.model import RecastModel
from recast_core.norms import NORMS, Norm, affine_parameters, norm_state, recompute
from recast_core.objectives import CrossEntropy, Objective, SplitRidge
from recast_core.pulse import advance
from recast_core.recipe import Recipe

EVALUATION_BATCH = 256
Optimizer = Literal["adamw", "sgd"]
OPTIMIZERS: tuple[Optimizer, ...] = ("adamw", "sgd")
# Affine parameters of normalisation layers train at this multiple of the coefficients' rate.
_AFFINE_RATE = 0.1
logger = logging.getLogger("recast.fit")
_SEEDS = 1 << 63
_SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True, eq=False)
class Fit:
    """What training found, and a head for it: all that a task needs.

    Attributes:
        coefficients: as they are sent, float32 ``[D]``.
        loss: mean training loss of the last epoch.
        norm: the tensors of the normalisation layers by name, where ``norm`` changed them. They
            never leave the client; ``recast_core.norms.load_norm`` puts them into a model.
        head: a ridge head fitted on all of the client's features after training, or the one that
            was to be kept.
    """

    coefficients: Tensor
    loss: float
    norm: Mapping[str, Tensor]
    head: nn.Linear


class FitOptions(TypedDict, total=False):
    """What ``fit`` may be told besides.

    Attributes:
        epochs: in place of the recipe's.
        batch: likewise.
        learning_rate: likewise.
        optimizer: ``adamw``, the default, or ``sgd``, which with K sets moves their mean at
            ``learning_rate / K``.
        norm: ``frozen``, the default; ``affine`` trains the normalisation layers' scales and
            shifts as well; ``recompute`` first gives BatchNorms the statistics of the images, if
            that raises held-out accuracy (see ``recast_core.norms.recompute``).
        head: a classifier to keep, an earlier task's: ``tasks["day"].head()``. What is lowered is
            then the cross-entropy through it, and no head is fitted.
        progress: write how far it is to standard error; where absent, on a terminal.
    """

    epochs: int
    batch: int
    learning_rate: float
    optimizer: Optimizer
    norm: Norm
    head: nn.Linear
    progress: bool


_OPTIONS = frozenset(FitOptions.__annotations__)


def fit(
    net: RecastModel,
    images: object,
    labels: object = None,
    classes: int | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    **options: Unpack[FitOptions],
) -> Fit:
    """Train the coefficients from where they are, then fit a head on the features that they give.

    Each step scores one half of a batch by the ridge head of the other
    (``recast_core.objectives.SplitRidge``), so what is trained is features that a closed-form head
    generalises from. Everything but the coefficients is frozen, normalisation statistics included.

    Args:
        net: attached; its coefficients are left at the result, and so are its normalisation
            layers unless they are frozen.
        images: floats ``[N, 3, H, W]`` as the backbone takes them, a tensor or array; or, with
            ``labels`` ``None``, a DataLoader or Dataset of pairs: ``fit(net, loader, classes=10)``.
        labels: ``[N]`` in ``[0, classes)``, of any type of whole numbers, or one-hot rows.
        classes: of the task; needed unless a data set says them, as ``ImageFolder`` does.
        recipe: epochs, batch and rate; its defaults where not given.
        seed: of the shuffling.
        options: see ``FitOptions``.

    Raises:
        RecastError: no images, one class only, inputs that cannot be converted without a guess, an
            option that does not exist or does not fit the backbone, a merged model or one with a
            task in use, or coefficients that diverged.
    """
    if unknown := set(options) - _OPTIONS:
        raise RecastError(
            f"fit has no option {min(unknown)!r}: choose {', '.join(sorted(_OPTIONS))}"
        )
    told = recipe or Recipe()
    made = Recipe(
        options.get("epochs", told.epochs),
        options.get("batch", told.batch),
        options.get("learning_rate", told.learning_rate),
    )
    check_recipe(made)
    if not -_SEEDS <= whole("seed", seed, -_SEEDS) < _SEEDS:
        raise RecastError(f"seed is {seed}: give one of 63 bits at most")
    count = whole("classes", class_count(images) if classes is None else classes, 1)
    with training(net):
        x, y = fit_inputs(net, images, labels, count)
        return _fit(net, x, y, count, made, seed, options)


def _fit(
    net: RecastModel,
    images: Tensor,
    labels: Tensor,
    classes: int,
    recipe: Recipe,
    seed: int,
    options: FitOptions,
) -> Fit:
    kept = options.get("head")
    objective: Objective = SplitRidge(classes)
    if kept is not None:
        objective = _through(net, kept, classes, images, labels)
    objective.check(labels)
    if len(images) > 1 and all(torch.equal(one, images[0]) for one in images[1:]):
        raise RecastError(f"all {len(images)} images are the same: look at how they were read")
    kind, norm = options.get("optimizer", "adamw"), options.get("norm", "frozen")
    if kind not in OPTIMIZERS:
        raise RecastError(f"unknown optimizer {kind!r}: choose {', '.join(OPTIMIZERS)}")
    if norm not in NORMS:
        raise RecastError(f"unknown norm {norm!r}: choose {', '.join(NORMS)}")
    net.eval()
    changed = norm == "affine"
    if norm == "recompute":
        changed = recompute(net, images, labels, classes, seed)
    affine = affine_parameters(net) if norm == "affine" else []
    optimizer = _optimizer(kind, net.coefficients.flat, affine, recipe.learning_rate)
    for parameter in affine:
        parameter.requires_grad_(True)
    steps: list[bool] = []
    optimizer.register_step_post_hook(lambda *_: steps.append(True))
    with shown(optimizer, len(labels), recipe, options.get("progress")):
        loss = descend(net, optimizer, images, labels, objective, recipe, seed)
    for parameter in affine:
        parameter.requires_grad_(False)
        parameter.grad = None
    if recipe.epochs and not steps:
        logger.warning(
            "no batch of these %d images teaches anything, so the coefficients stay as they were "
            "and only a head is fitted: give two images or more of each class", len(labels),
        )  # fmt: skip
    coefficients = net.coefficients.sent()
    state = norm_state(net) if changed else {}
    if not all(bool(torch.isfinite(t).all()) for t in (coefficients, *state.values())):
        raise RecastError("training ended in NaN or infinity: lower the learning rate")
    if kept is not None:
        return Fit(coefficients.cpu(), loss, state, kept)
    features = features_of(net, images)
    if not bool(torch.isfinite(features).all()):
        raise RecastError("features are NaN or infinity: lower the learning rate, or scale images")
    head = ridge_head(features, labels, classes)
    return Fit(coefficients.cpu(), loss, state, head)


@torch.no_grad()
def _through(
    net: RecastModel, head: nn.Linear, classes: int, images: Tensor, labels: Tensor
) -> CrossEntropy:
    """The objective of a head that is kept, frozen.

    A ridge head's scores are near 0 and 1, where logits are a few units, and of another head
    nobody knows: they are multiplied by what gives these images the least loss as things stand.

    Raises:
        RecastError: no Linear, or one of other classes.
    """
    if not isinstance(head, nn.Linear):
        raise RecastError(f"the head to keep is a {type(head).__name__}: give an nn.Linear")
    if head.out_features != classes:
        raise RecastError(
            f"the head to keep has {head.out_features} classes and the task {classes}: a head is "
            "kept for a new domain of its own classes"
        )
    scores = head.to(net.device)(features_of(net.eval(), images))
    losses = {scale: float(F.cross_entropy(scale * scores, labels)) for scale in _SCALES}
    found = copy.deepcopy(head).to(net.device)
    for parameter in found.parameters():
        parameter.mul_(min(losses, key=losses.__getitem__))
    return CrossEntropy(found)


def _optimizer(
    kind: Optimizer, coefficients: nn.Parameter, affine: list[nn.Parameter], rate: float
) -> torch.optim.Optimizer:
    groups: list[dict[str, object]] = [{"params": [coefficients]}]
    if affine:
        groups.append({"params": affine, "lr": _AFFINE_RATE * rate})
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=0.0)
    return torch.optim.SGD(groups, lr=rate)


@torch.no_grad()
def features_of(net: Featured, images: Tensor) -> Tensor:
    """Features ``[N, d]`` of images ``[N, 3, H, W]``, in batches, without gradients."""
    found = []
    for part in images.split(EVALUATION_BATCH):
        found.append(net.features(part))
        advance(len(part))
    return torch.cat(found)
