"""How many of a network's BatchNorms had better take a client's own statistics, by label skew.

``python -m experiments.studies.own_statistics`` prints accuracies of the deployed classifier where
the first so many of its BatchNorms normalise by each client's own training images and the others by
what they came with. Clients are judged by test images of their own mix of labels. Nothing trains.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client.data import load_dataset, parse_tasks
from experiments.studies.one_line import in_one_line
from experiments.studies.shift_fleet import Domain, Share, deal
from recast_core.backbones import Backbone, load_backbone
from recast_core.heads import right_answers
from recast_core.layers.norm import RecastBatchNorm2d
from recast_core.layers.statistics import BatchStatistics
from recast_core.methods.plain import PlainModel
from recast_core.model import replace_module
from recast_core.statistics import features_by, spread_choice

PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
IID = "iid"


class Network:
    """A deployed classifier, the first of whose BatchNorms take statistics of a client's images."""

    def __init__(self, backbone: Backbone) -> None:
        self.preprocess = backbone.preprocess
        self.model = PlainModel(backbone.model)
        self.statistics = BatchStatistics()
        self._norms = []
        for name, module in [*self.model.backbone.named_modules()]:
            if isinstance(module, torch.nn.BatchNorm2d):
                layer = RecastBatchNorm2d(module, {})
                replace_module(self.model.backbone, name, layer)
                self._norms.append(layer)

    def first(self, part: float) -> None:
        """Let this part of the BatchNorms, from the first on, be the ones that do."""
        for place, norm in enumerate(self._norms):
            norm.statistics = self.statistics if place < round(part * len(self._norms)) else None

    @torch.no_grad()
    def right(self, share: Share, images: Tensor) -> int:
        """How many of a client's test images are right, of uint8 images ``[N, ...]`` of all."""
        by, wanted = share.every[spread_choice(len(share.every))], share.judge
        inputs = self.preprocess(images[by]), self.preprocess(images[wanted])
        found = features_by(self.model.features, self.statistics, inputs)
        return right_answers(self.model.head, found, share.judge_labels)


def accuracies(
    backbone: str, task: str, clients: int, alpha: float, seeds: Sequence[int]
) -> list[float]:
    """Of all clients' test images, for each of ``PARTS``: the mean over seeds."""
    loaded = load_backbone(backbone)
    network = Network(loaded)
    [spec] = parse_tasks(task)
    data = load_dataset(spec, loaded.preprocess.size)
    images = torch.from_numpy(np.concatenate([data.x_train, data.x_test]))
    domain = Domain(images, data.y_train, data.y_test, len(data.classes))
    found = []
    for part in PARTS:
        network.first(part)
        right = total = 0
        for seed in seeds:
            for share in deal(domain, clients, alpha, seed, -1):
                if len(share.judge):
                    right, total = right + network.right(share, images), total + len(share.judge)
        found.append(right / total)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.own_statistics",
        description=(__doc__ or "").split("\n")[0],
    )
    data = "digits[50%:]"
    shifts = "", "+contrast:4", "+lowlight:4", "+rotate:3", "+gauss:3"
    parser.add_argument("--backbone", default="digits_resnet20")
    parser.add_argument("--tasks", default=" ".join(data + shift for shift in shifts))
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--alphas", nargs="+", default=["0.1", "0.3", IID], help=f"or {IID}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(arguments)
    print(f"{Path(options.backbone).stem}, {options.clients} clients, seeds {options.seeds}\n")
    heads = " | ".join(f"{100 * part:.0f} %" for part in PARTS)
    print(f"| task | Dirichlet | {heads} |")
    print("|---|--:|" + "--:|" * len(PARTS))
    for spec in parse_tasks(options.tasks):
        for alpha in options.alphas:
            width = 1e6 if alpha == IID else float(alpha)
            found = accuracies(options.backbone, str(spec), options.clients, width, options.seeds)
            told = " | ".join(f"{100 * one:.1f}" for one in found)
            print(f"| {spec.name} | {alpha} | {told} |", flush=True)


if __name__ == "__main__":
    in_one_line(main)
