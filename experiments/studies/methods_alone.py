"""What each method learns from one client's images, against the bytes that it would send.

``python -m experiments.studies.methods_alone`` trains every method on the same images with the same
objective and fits the same ridge head on its features, so what differs is what trains. Test images
choose nothing: epochs and learning rates are fixed beforehand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from client.data import Dataset, load_dataset, parse_task
from experiments.studies.one_line import in_one_line
from recast_core.backbones import Backbone, load_backbone
from recast_core.config import RecastConfig
from recast_core.files import write_atomically
from recast_core.heads.ridge import ridge_head
from recast_core.methods import (
    Clr,
    Full,
    HeadOnly,
    MethodModel,
    NormAffine,
    Piggyback,
    Recast,
    train,
)
from recast_core.mimicry import mimic, seeded_bank
from recast_core.model import attach
from recast_core.objectives import SplitRidge
from recast_core.recipe import Recipe

# The rate of coefficients is the default run's; the others are what each method says of itself.
RATE = 2e-2
EPOCHS = 15


def variants(target: str) -> dict[str, tuple[Callable[[nn.Module], MethodModel], float]]:
    """How each row of the table makes a model trainable, and its learning rate."""
    own = RecastConfig(target)
    return {
        "head only": (HeadOnly().prepare, 0.0),
        "RECAST, own weights": (lambda m: Recast().prepare(attach(m, mimic(m, own))), RATE),
        "RECAST, random templates": (
            lambda m: Recast().prepare(attach(m, seeded_bank(m, own, seed=1))),
            RATE,
        ),
        "norm affine": (NormAffine().prepare, NormAffine().learning_rate),
        "CLR": (Clr().prepare, Clr().learning_rate),
        "Piggyback": (Piggyback().prepare, Piggyback().learning_rate),
        "full": (Full().prepare, Full().learning_rate),
    }


def accuracy(
    prepare: Callable[[nn.Module], MethodModel],
    rate: float,
    backbone: Backbone,
    data: Dataset,
    images: int,
    seed: int,
) -> tuple[float, int]:
    """Test accuracy after training on ``images`` drawn by ``seed``, and the bytes of an update."""
    drawn = np.random.default_rng(seed).permutation(len(data.y_train))[:images]
    x, y = backbone.preprocess(data.x_train[drawn]), torch.from_numpy(data.y_train[drawn])
    model = prepare(backbone.model)
    classes = len(data.classes)
    if model.sent_count:
        recipe = Recipe(EPOCHS, learning_rate=rate)
        train(model, x, y, SplitRidge(classes), recipe, seed)
    with torch.no_grad():
        head = ridge_head(_features(model, x), y, classes)
        scores = head(_features(model, backbone.preprocess(data.x_test)))
    correct = scores.argmax(1) == torch.from_numpy(data.y_test)
    return float(correct.float().mean()), model.sent_bytes


def _features(model: MethodModel, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.features(part) for part in images.split(256)])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.methods_alone",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--backbone", default="glyph_resnet20")
    parser.add_argument("--target", default="conv")
    parser.add_argument("--task", default="digits+rotated")
    parser.add_argument("--images", type=int, default=200, help="training images of the client")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    size = load_backbone(options.backbone).preprocess.size
    data = load_dataset(parse_task(options.task), size)
    table = Table(title=f"{options.task}, {options.images} images, {EPOCHS} epochs")
    for name in ("method", "bytes", "accuracy", "lowest", "highest"):
        table.add_column(name, justify="left" if name == "method" else "right")
    rows = []
    for name, (prepare, rate) in variants(options.target).items():
        found = [
            accuracy(prepare, rate, load_backbone(options.backbone), data, options.images, seed)
            for seed in options.seeds
        ]
        values, sent = [100 * value for value, _ in found], found[0][1]
        row = {"method": name, "bytes": sent, "accuracy": fmean(values)}
        rows.append(row | {"lowest": min(values), "highest": max(values)})
        spread = (f"{min(values):.1f}", f"{max(values):.1f}")
        table.add_row(name, f"{sent:,}", f"{fmean(values):.1f}", *spread)
    Console().print(table)
    if options.json:
        write_atomically(options.json, (json.dumps(rows, indent=2) + "\n").encode())


if __name__ == "__main__":
    in_one_line(main)
