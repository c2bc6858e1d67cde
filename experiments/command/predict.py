"""``recast predict``: the classes of some images by a learned task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from experiments.command.console import stdout
from experiments.command.deployed import deploy, has_head
from experiments.command.run_folder import learned, opened
from experiments.command.sight import Sight
from experiments.command.tasks_export import fit_head
from recast_core.backbones import Preprocess, load_backbone
from recast_core.backbones.files import read_state
from recast_core.errors import RecastError

_LOGIT = "score: a logit of the deployed classifier"
_KEPT = "score: of an earlier task's classifier"
_MERGED = "score: of the head that the run's server merged"


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model that takes images ``[N, 3, size, size]`` to scores ``[N, C]``.

    ``sight`` says what became of the images that its head was fitted on, ``caption`` what a score
    is.
    """

    model: nn.Module
    preprocess: Preprocess
    classes: tuple[str, ...]
    sight: Sight = field(default_factory=Sight)
    caption: str = "score: of a ridge head, near 1 for a sure class"


def predict(
    images: Sequence[Path],
    task: str,
    run: Path | None,
    data: str,
    model: Path | None,
    *,
    skip_unreadable: bool = False,
) -> dict[str, Any]:
    """Print and return the class and score of each image.

    Args:
        images: files that Pillow reads.
        task: of the run; its head is fitted on ``data``.
        run: its folder.
        data: a DATA specification; empty for the task's own, as the registry has it.
        model: a file of ``recast tasks export --data`` instead of a task.
        skip_unreadable: go on without images of ``data`` that cannot be read.

    Raises:
        RecastError: what is missing, or images that cannot be read, all of them in one line.
    """
    if bool(task) == bool(model):
        raise RecastError("nothing to predict with: give either --task or --model")
    classifier = _exported(model) if model else _attached(task, run, data, skip_unreadable)
    scores = _scores(classifier, images)
    best = scores.max(1)
    found: list[dict[str, Any]] = [
        {"image": str(path), "class": classifier.classes[int(index)], "score": float(score)}
        for path, score, index in zip(images, best.values, best.indices, strict=True)
    ]
    table = Table(caption=classifier.caption, min_width=50)
    table.add_column("image")
    table.add_column("class")
    table.add_column("score", justify="right")
    for row in found:
        table.add_row(row["image"], row["class"], f"{row['score']:.3f}")
    stdout().print(table)
    return {"task": task or None, "classes": list(classifier.classes), "images": found}


def _attached(task: str, run: Path | None, data: str, skip_unreadable: bool) -> Classifier:
    with opened(run) as (registry, found):
        model = learned(registry, found, task)
    source = data or model.task.source
    if has_head(model, found.config):
        kept = deploy(model, found.config, source, skip_unreadable=skip_unreadable)
        sight = kept.sight or Sight()
        caption = _KEPT if model.kept else _MERGED if model.merged else _LOGIT
        return Classifier(kept.model, model.backbone.preprocess, kept.classes, sight, caption)
    if not source:
        raise RecastError(
            f"task {task!r} was learned from the clients' own folders: name images to fit its head "
            "on with --data"
        )
    try:
        fitted = fit_head(model, source, skip_unreadable=skip_unreadable)
    except RecastError as error:
        if data:
            raise
        raise RecastError(
            f"{error}; that is the task's own data: name others to fit its head on with --data"
        ) from error
    model.net.head = fitted.head
    return Classifier(model.net, model.backbone.preprocess, fitted.classes, fitted.sight)


def _exported(path: Path) -> Classifier:
    state, about = read_state(path)
    if about.get("format") != "recast.export/1":
        raise RecastError(f"{path} is no exported task: make one with `recast tasks export`")
    if about["head"] == "none":
        raise RecastError(f"{path} has no classifier: export the task again with --data")
    classes = tuple(json.loads(about["classes"]))
    sight = Sight.read(about, path)
    if ":" not in about["architecture"]:
        backbone = load_backbone(f"file:{path}@{about['architecture']}")
        captions = {"backbone": _LOGIT, "kept": _KEPT, "merged": _MERGED}
        caption = captions.get(about["head"], Classifier.caption)
        return Classifier(backbone.model, backbone.preprocess, classes, sight, caption)
    kind, _, name = about["architecture"].partition(":")
    if kind != "torchvision":
        raise RecastError(f"{path} is for a model of your own ({about['backbone']}): load it there")
    from torchvision.models import get_model

    model: nn.Module = get_model(name, num_classes=len(classes))
    model.load_state_dict(state)
    mean, std = (tuple(map(float, about[key].split(","))) for key in ("mean", "std"))
    preprocess = Preprocess(int(about["size"]), mean, std)
    return Classifier(model.eval(), preprocess, classes, sight)


@torch.no_grad()
def _scores(classifier: Classifier, images: Sequence[Path]) -> Tensor:
    rows, failed = [], []
    for path in images:
        try:
            image = classifier.sight.see(path, classifier.preprocess.size)
            rows.append(classifier.model(classifier.preprocess(image[None].copy())))
        except ValueError as error:
            failed.append(f"{path} ({error})")
    if failed:
        which = "image" if len(failed) == 1 else f"{len(failed)} of {len(images)} images:"
        raise RecastError(f"cannot read {which} {', '.join(failed)}: give JPEG or PNG files")
    return torch.cat(rows)
