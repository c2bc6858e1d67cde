"""Make a deployed classifier: fine-tune a backbone, with a new classifier, on the server's images.

``python -m experiments.studies.deploy --data "digits[:50%]" -o digits_resnet20.safetensors`` made
the one that the package ships, from the network that saw letters.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.data import load_dataset, parse_task
from client.learners import pick_device
from recast_core.backbones import Backbone, load_backbone
from recast_core.files import write_atomically
from recast_core.model import replace_module
from recast_core.recipe import Recipe
from recast_core.sources.fine_tune import rate_at


def deploy(
    loaded: Backbone, images: Tensor, labels: Tensor, classes: int, recipe: Recipe, seed: int
) -> nn.Module:
    """The backbone with a new classifier, everything trained: AdamW, one half cosine.

    Args:
        loaded: its model is used up; on the device of ``images``.
        images: float32 ``[N, 3, H, W]``.
        labels: int64 ``[N]``.
        classes: outputs of the new classifier.
        recipe: epochs, batch and the highest rate.
        seed: of classifier and shuffling.
    """
    torch.manual_seed(seed)
    model = loaded.model
    width = [m for m in model.get_submodule(loaded.head).modules() if isinstance(m, nn.Linear)][-1]
    # In place of the last Linear alone: heads such as ``heads.head`` keep their name.
    name = next(name for name, module in model.named_modules() if module is width)
    replace_module(model, name, nn.Linear(width.in_features, classes).to(images.device))
    model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    batch = min(recipe.batch, len(labels))
    steps = recipe.epochs * (len(labels) // batch)
    for step in range(steps):
        place = step % (len(labels) // batch)
        if not place:
            order = torch.randperm(len(labels), generator=generator)
        chosen = order[place * batch : (place + 1) * batch]
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * rate_at(step, steps)
        loss = F.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The fraction right."""
    right = torch.cat([model(part).argmax(1) for part in images.split(512)])
    return float((right == labels).double().mean())


def save(model: nn.Module, loaded: Backbone, classes: Sequence[str], path: Path) -> None:
    """Write float16 weights, and what a loader needs to know.

    ``class_names`` are a JSON list: what the classifier's outputs mean.
    """
    sight = loaded.preprocess
    state = {
        name: tensor.half().contiguous().cpu()
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }
    told = {
        "class_names": json.dumps(list(classes)),
        "mean": ",".join(map(str, sight.mean)),
        "size": str(sight.size),
        "std": ",".join(map(str, sight.std)),
    }
    write_atomically(path, safetensors.torch.save(state, told))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.deploy", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--backbone", default="glyph_resnet20")
    parser.add_argument("--data", default="digits[:50%]")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    device = pick_device(given.device)
    loaded = load_backbone(given.backbone)
    data = load_dataset(parse_task(given.data), loaded.preprocess.size)
    loaded.model.to(device)
    train, test = (
        loaded.preprocess(torch.from_numpy(x).to(device)) for x in (data.x_train, data.x_test)
    )
    y_train, y_test = (torch.from_numpy(y).to(device) for y in (data.y_train, data.y_test))
    recipe = Recipe(given.epochs, given.batch, given.learning_rate)
    model = deploy(loaded, train, y_train, len(data.classes), recipe, given.seed)
    save(model, loaded, data.classes, given.output)
    print(
        f"{given.output}: {len(y_train)} images of {len(data.classes)} classes, accuracy "
        f"{100 * accuracy(model, test, y_test):.1f} % on {len(y_test)} test images"
    )


if __name__ == "__main__":
    main()
