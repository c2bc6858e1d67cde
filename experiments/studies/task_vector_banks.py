"""Make a task-vector bank: fine-tune the backbone on each of some tasks, and keep the differences.

``python -m experiments.studies.task_vector_banks -o bank.safetensors``
A server would do this once, with images of its own; clients then learn other classes under such
shifts with ``--bank bank.safetensors``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from client.data import load_dataset, parse_tasks
from experiments.studies.one_line import in_one_line
from recast_core.backbones import load_backbone
from recast_core.bank import TemplateBank
from recast_core.config import RecastConfig
from recast_core.methods import Full, train
from recast_core.objectives import SplitRidge
from recast_core.recipe import Recipe
from recast_core.sources.task_vectors import task_vector_bank
from recast_core.task_spec import TaskSpec

# Fixed beforehand: what the backbone's own pretraining ended with.
RATE, EPOCHS = 1e-3, 10


def donor(backbone: str, task: TaskSpec, seed: int) -> dict[str, Tensor]:
    """The backbone's weights after fine-tuning on a task's training images."""
    loaded = load_backbone(backbone)
    data = load_dataset(task, loaded.preprocess.size)
    model = Full().prepare(loaded.model)
    images, labels = loaded.preprocess(data.x_train), torch.from_numpy(data.y_train)
    objective, recipe = SplitRidge(len(data.classes)), Recipe(EPOCHS, learning_rate=RATE)
    train(model, images, labels, objective, recipe, seed)
    return {
        name: tensor.detach().clone() for name, tensor in model.net.backbone.state_dict().items()
    }


def make_bank(backbone: str, donors: str, target: str, share: str, seed: int) -> TemplateBank:
    """The task-vector bank of one donor for each task in ``donors``.

    Raises:
        RecastError: a task or target that is not there.
    """
    states = [donor(backbone, task, seed) for task in parse_tasks(donors)]
    model = load_backbone(backbone).model
    return task_vector_bank(model, states, RecastConfig(target), share=share)  # type: ignore[arg-type]  # argparse checks it


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.task_vector_banks",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--backbone", default="glyph_resnet20")
    parser.add_argument("--donors", default="digits@0-4+inverted digits@0-4+rotated")
    parser.add_argument("--target", default="conv")
    parser.add_argument("--share", default="block", choices=["group", "block", "stage", "model"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    bank = make_bank(options.backbone, options.donors, options.target, options.share, options.seed)
    bank.save(options.output)
    print(f"{options.output}: {bank.sent} coefficients, {bank.template_count} templates")


if __name__ == "__main__":
    in_one_line(main)
