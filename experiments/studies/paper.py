"""The paper's own test: six data sets, one task each, centralised, by the paper's recipe.

``python -m experiments.studies.paper --root data --rows paper.jsonl`` trains every variant on every
task with three seeds: AdamW at 2e-3, batches of 128, 100 epochs, the rate a tenth after every 33
(Tasnim and Plummer, ICLR 2025, section 4 and its code), and appends a row for each to the file.
``docs/paper.md`` lists what differs from the paper's code, and why. ``--quick`` is one pass.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.data import load_dataset, parse_task
from client.data.arrays import Dataset
from client.learners import pick_device
from experiments.studies.one_line import in_one_line, resumable
from experiments.studies.shift_book import Book, OutOfTime
from recast_core.backbones import Backbone, load_backbone
from recast_core.config import RecastConfig
from recast_core.errors import RecastError
from recast_core.heads import right_answers
from recast_core.methods import MethodModel, parse_method
from recast_core.mimicry import mimic
from recast_core.model import attach

SEEDS = (42, 1998, 3142592)
VIT, RESNET = "timm:vit_small_patch16_224", "resnet34"
TASKS = ("flowers=Flowers102", "aircraft=FGVCAircraft", "scenes=folder:{root}/scenes",
         "cifar100=CIFAR100", "cifar10=CIFAR10", "birds=folder:{root}/cub")  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """The paper's.

    Attributes:
        epochs: passes over the training images.
        batch: images a step.
        rate: of AdamW, for coefficients, adapters and classifier alike.
        step: epochs after which the rate is divided by ten.
    """

    epochs: int = 100
    batch: int = 128
    rate: float = 2e-3
    step: int = 33


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        name: as the paper has it.
        kind: of backbone, ``vit`` or ``resnet``.
        preset: of ``RecastConfig.preset``; no RECAST where empty.
        method: an adapter as ``--method`` takes it, on top of the preset or alone.
    """

    name: str
    kind: str
    preset: str = ""
    method: str = ""


def _variants() -> tuple[Variant, ...]:
    presets = {"vit": ("recast-att", "recast-mlp", "recast-att+mlp"), "resnet": ("recast-resnet",)}
    adapters = {
        "vit": {"MeLo": "lora:4:attn", "AdaptFormer": "adaptformer"},
        "resnet": {"Piggyback": "piggyback", "CLR": "clr"},
    }
    found = []
    for kind, names in presets.items():
        found.append(Variant(f"linear head, {kind}", kind, method="head-only"))
        found += [Variant(name, kind, name) for name in names]
        for title, method in adapters[kind].items():
            found.append(Variant(title, kind, method=method))
            found += [Variant(f"{name} + {title}", kind, name, method) for name in names]
    return tuple(found)


VARIANTS = _variants()
BY_NAME = {variant.name: variant for variant in VARIANTS}


def prepared(variant: Variant, loaded: Backbone, device: torch.device) -> MethodModel:
    """The backbone with what trains, in evaluation mode: BatchNorm statistics stay as they are."""
    model: nn.Module = loaded.model
    if variant.preset:
        config = RecastConfig.preset(variant.preset)
        model = attach(model, mimic(model, config), loaded.head)
    method = parse_method(variant.method or "recast").prepare(model)
    return method.to(device)


def learn(
    model: MethodModel, loaded: Backbone, data: Dataset, recipe: Recipe, seed: int
) -> dict[str, Any]:
    """Train one task and judge it once, by its test images.

    Returns:
        Accuracy, what was trained and sent, and the classifier's own numbers.

    Raises:
        RecastError: training diverged.
    """
    random.seed(seed)
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    images, labels = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    width = model.features(loaded.preprocess(images[:2]).to(device)).shape[1]
    head = nn.Linear(width, len(data.classes)).to(device)
    trained = [*model.trainable().values(), *head.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, recipe.step)
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(labels)).split(recipe.batch):
            x = loaded.preprocess(images[rows]).to(device)
            loss = F.cross_entropy(head(model.features(x)), labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    if not bool(torch.isfinite(loss)):
        raise RecastError("training ended in NaN or infinity: lower the rate")
    tests, answers = torch.from_numpy(data.x_test), torch.from_numpy(data.y_test)
    return {
        "accuracy": _accuracy(model, head, loaded, tests, answers),
        "trained": model.trained_count,
        "sent": model.sent_count,
        "sent_bytes": model.sent_bytes,
        "head": sum(p.numel() for p in head.parameters()),
        "head_bytes": 4 * sum(p.numel() for p in head.parameters()),
    }


@torch.no_grad()
def _accuracy(
    model: MethodModel, head: nn.Module, loaded: Backbone, images: Tensor, labels: Tensor
) -> float:
    device, right = next(model.parameters()).device, 0
    for rows in torch.arange(len(labels)).split(256):
        features = model.features(loaded.preprocess(images[rows]).to(device))
        right += right_answers(head, features, labels[rows])
    return right / len(labels)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = resumable("paper", __doc__)
    parser.add_argument("--root", type=Path, default=Path("data"), help="where paper_data wrote")
    parser.add_argument("--vit", default=VIT, help="backbone of the variants for ViTs")
    parser.add_argument("--resnet", default=RESNET, help="of those for ResNets")
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="{root} stands for --root")
    parser.add_argument("--only", nargs="+", metavar="VARIANT",
                        help='"linear head, vit", "recast-att + MeLo", ...')  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of every cell")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds; the rest is left")
    parser.add_argument("--quick", action="store_true", help="one pass, one seed")
    options = parser.parse_args(arguments)
    missing = set(options.only or ()) - BY_NAME.keys()
    if missing:
        raise RecastError(
            f"no variant {'; '.join(sorted(missing))}: choose from {'; '.join(BY_NAME)}"
        )
    recipe, seeds = Recipe(), options.seeds
    if options.quick:
        recipe, seeds = replace(recipe, epochs=1), seeds[:1]
    book = Book(options.rows, time.monotonic() + options.budget)
    names = {"vit": options.vit, "resnet": options.resnet}
    try:
        for task in options.tasks:
            for variant in (BY_NAME[name] for name in options.only or BY_NAME):
                for seed in seeds:
                    _cell(book, variant, names, task.format(root=options.root), seed, recipe,
                          options.device)  # fmt: skip
    except OutOfTime:
        print(f"out of time: the same command goes on with {options.rows}")
        return
    show(book)


def _cell(
    book: Book,
    variant: Variant,
    backbones: dict[str, str],
    task: str,
    seed: int,
    recipe: Recipe,
    device: str,
) -> None:
    spec, backbone = parse_task(task), backbones[variant.kind]
    key = {"variant": variant.name, "backbone": backbone, "task": str(spec), "seed": seed,
           "epochs": recipe.epochs}  # fmt: skip
    if book.find(**key):
        return
    book.check()
    began, loaded = time.monotonic(), load_backbone(backbone)
    data = load_dataset(spec, loaded.preprocess.size)
    found = learn(prepared(variant, loaded, pick_device(device)), loaded, data, recipe, seed)
    book.add({**key, **found, "seconds": round(time.monotonic() - began, 2)})
    print(f"{variant.name}, {spec.name}, seed {seed}: {100 * found['accuracy']:.1f} %", flush=True)


def show(book: Book) -> None:
    """Print each variant's mean over tasks and seeds, with what it sends."""
    print("| variant | trained | sent | with head | accuracy | lowest-highest seed |")
    print("|---|--:|--:|--:|--:|--:|")
    for name in BY_NAME:
        rows = book.all(variant=name)
        if not rows:
            continue
        seeds = [
            float(np.mean([row["accuracy"] for row in rows if row["seed"] == seed]))
            for seed in dict.fromkeys(row["seed"] for row in rows)
        ]
        size = rows[0]["sent_bytes"] + float(np.mean([row["head_bytes"] for row in rows]))
        print(
            f"| {name} | {rows[0]['trained']:,} | {rows[0]['sent_bytes']:,} B | {size:,.0f} B "
            f"| {100 * float(np.mean(seeds)):.1f} % "
            f"| {100 * min(seeds):.1f}-{100 * max(seeds):.1f} |"
        )


if __name__ == "__main__":
    in_one_line(main)
