"""Banks of many source tasks, for new classes: principal directions of what other tasks moved.

``python -m experiments.studies.tasks_banks --donors "digits@0-4 digits@5-9" -o tasks.safetensors``
fine-tunes the backbone on each donor task, apart from all classifiers, and keeps for each section
of the network the directions along which these networks differ most: of all parameters, or with
``--move norms`` of scales and shifts alone, which makes a bank of some kilobytes.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from client.data import load_dataset, parse_tasks
from experiments.studies.one_line import in_one_line
from experiments.studies.tasks_donors import LETTERS, drawn, letters
from recast_core.backbones import load_backbone
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.methods import parse_method, train
from recast_core.objectives import SplitRidge
from recast_core.recipe import Recipe
from recast_core.sources.shift_bank import (
    divide,
    member_tensors,
    principal_directions,
    shift_bank,
)
from recast_core.task_spec import TaskSpec

MOVES = {"all": "full", "norms": "norm-affine"}


def donor_difference(
    backbone: str, task: TaskSpec, move: str, recipe: Recipe, seed: int
) -> Mapping[str, Tensor]:
    """What fine-tuning on a task moved, by tensor name: float32 ``[*shape]``."""
    loaded = load_backbone(backbone)
    data = load_dataset(task, loaded.preprocess.size)
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    names = moved_tensors(backbone, move)
    model = parse_method(MOVES[move]).prepare(loaded.model)
    images = loaded.preprocess(data.x_train)
    labels = torch.from_numpy(data.y_train)
    classes = {old: new for new, old in enumerate(labels.unique().tolist())}
    labels = torch.tensor([classes[label] for label in labels.tolist()])
    train(model, images, labels, SplitRidge(len(classes)), recipe, seed)
    after = model.net.backbone.state_dict()
    return {name: after[name] - before[name] for name in names}


def moved_tensors(backbone: str, move: str) -> tuple[str, ...]:
    """The tensors that a bank moves: all that it can, or those of normalisation layers."""
    loaded = load_backbone(backbone)
    names = member_tensors(loaded.model, loaded.head)
    if move == "all":
        return names
    of = dict(loaded.model.named_parameters())
    norms = tuple(name for name in names if of[name].dim() == 1 and _is_norm(loaded.model, name))
    if not norms:
        raise RecastError("the backbone has no normalisation layer to move: give --move all")
    return norms


def _is_norm(model: torch.nn.Module, name: str) -> bool:
    module = model.get_submodule(name.rpartition(".")[0])
    return isinstance(module, torch.nn.BatchNorm2d | torch.nn.LayerNorm)


def principal_bank(
    backbone: str,
    differences: Sequence[Mapping[str, Tensor]],
    sections: int,
    directions: int,
    *,
    rank: int | None = 32,
    bits: int = 4,
) -> TemplateBank:
    """The bank of the leading directions of each section.

    Raises:
        RecastError: fewer differences than directions, or fewer blocks than sections.
    """
    model = load_backbone(backbone).model
    found = principal_directions(differences, divide(list(differences[0]), sections), directions)
    return shift_bank(model, found, rank=rank, bits=bits, meta={"source": "tasks"})


def shape_of(told: str) -> tuple[int, int, int]:
    """Sources, sections and directions of ``SOURCES:SECTIONSxDIRECTIONS``.

    Raises:
        RecastError: it is written otherwise.
    """
    found = re.fullmatch(r"(\d+):(\d+)x(\d+)", told)
    if not found:
        raise RecastError(f"{told!r} is no shape of a bank: write SOURCES:SECTIONSxDIRECTIONS")
    sources, sections, directions = map(int, found.groups())
    return sources, sections, directions


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.tasks_banks",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--backbone", default="glyph_resnet20")
    parser.add_argument("--donors", required=True, help="tasks, as --tasks takes them; letters")
    parser.add_argument("--draw", type=int, help="donors, of the data given; else these")
    parser.add_argument("--classes", type=int, default=10, help="of each that is drawn")
    parser.add_argument("--without", nargs="*", default=[], help="families of shifts")
    parser.add_argument("--move", choices=MOVES, default="all")
    parser.add_argument("--sections", type=int, default=4)
    parser.add_argument("--directions", type=int, default=12)
    parser.add_argument("--shapes", nargs="+", help="SOURCES:SECTIONSxDIRECTIONS, one bank each")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="recast-") as folder:
        _make(options, _donors(options, Path(folder)))


def _donors(options: argparse.Namespace, folder: Path) -> Sequence[TaskSpec]:
    told = [text for text in options.donors.split() if text != LETTERS]
    tasks = list(parse_tasks(" ".join(told))) if told else []
    if LETTERS in options.donors.split():
        tasks.append(letters(folder))
    if options.draw is None:
        return tasks
    size = load_backbone(options.backbone, weights=False).preprocess.size
    return drawn(tasks, options.draw, options.classes, size, options.seed, options.without)


def _make(options: argparse.Namespace, tasks: Sequence[TaskSpec]) -> None:
    method = parse_method(MOVES[options.move])
    recipe = Recipe(options.epochs, learning_rate=method.learning_rate)
    single = (len(tasks), options.sections, options.directions)
    shapes = [shape_of(told) for told in options.shapes or ()] or [single]
    if max(sources for sources, *_ in shapes) > len(tasks):
        raise RecastError(f"a bank of more sources than the {len(tasks)} donors: give more donors")
    found = []
    for place, task in enumerate(tasks):
        found.append(
            donor_difference(options.backbone, task, options.move, recipe, options.seed + place)
        )
        print(f"{place + 1} of {len(tasks)}: {task.name} {'+'.join(task.transforms)}", flush=True)
    for sources, sections, directions in shapes:
        path: Path = options.output
        if options.shapes:
            path = path.with_stem(f"{path.stem}-{sources}-{sections}x{directions}")
        bank = principal_bank(
            options.backbone, found[:sources], sections, directions, bits=options.bits
        )
        bank.save(path)
        print(f"{path}: {bank.sent} coefficients, {len(bank.to_bytes()):,} bytes", flush=True)


if __name__ == "__main__":
    in_one_line(main)
