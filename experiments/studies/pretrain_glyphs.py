"""Pretrain the default backbone on glyphs.

``python -m experiments.studies.pretrain_glyphs -o FILE`` writes it.

The network sees letters of the scripts in matplotlib's fonts and never a digit, so that handwritten
digits are new to it. Needs the ``glyphs`` extra.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import safetensors.torch
import torch
from rich.progress import track
from torch import Tensor, nn

from experiments.studies.glyphs import SIZE, Glyphs, augment, plain, render_glyphs
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.files import write_atomically

MEAN, STD = 0.25, 0.3


def pretrain(glyphs: Glyphs, steps: int, batch: int, seed: int, device: str) -> CifarResNet:
    """Train a ResNet-20 to tell the glyphs apart: SGD, one cycle, label smoothing."""
    torch.manual_seed(seed)
    model = CifarResNet(20, len(glyphs.characters)).to(device)
    images = torch.from_numpy(glyphs.images).to(device).float().div(255)
    labels = torch.from_numpy(glyphs.labels).to(device)
    training = torch.from_numpy(~glyphs.held_out).to(device).nonzero().squeeze(1)
    generator = torch.Generator(device).manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    for _ in track(range(steps), "pretraining"):
        drawn = torch.randint(len(training), (batch,), generator=generator, device=device)
        chosen = training[drawn]
        loss = loss_of(model(normalised(augment(images[chosen], generator))), labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def normalised(images: Tensor) -> Tensor:
    """Grey ``[N, 1, H, W]`` in 0..1 as the three channels that the network takes."""
    return ((images - MEAN) / STD).expand(-1, 3, -1, -1)


@torch.no_grad()
def accuracy(model: nn.Module, glyphs: Glyphs, device: str) -> float:
    """The fraction right on the faces that were held out."""
    images = torch.from_numpy(glyphs.images[glyphs.held_out]).to(device).float().div(255)
    labels = torch.from_numpy(glyphs.labels[glyphs.held_out]).to(device)
    return float((model(normalised(plain(images))).argmax(1) == labels).float().mean())


def save(model: CifarResNet, path: Path, metadata: dict[str, str]) -> None:
    """Write float16 weights, batch statistics included, and what a loader needs to know."""
    # One metadata key: safetensors promises no order among several.
    state = {
        name: tensor.half().contiguous().cpu()
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }
    write_atomically(path, safetensors.torch.save(state, dict(sorted(metadata.items()))))


def main() -> None:
    """Render, train, measure on held-out faces, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    glyphs = render_glyphs()
    classes = len(glyphs.characters)
    print(f"{len(glyphs.images)} glyphs of {classes} classes")
    model = pretrain(glyphs, options.steps, options.batch, options.seed, options.device)
    found = accuracy(model, glyphs, options.device)
    save(
        model,
        options.output,
        {
            "accuracy": f"{found:.4f}",
            "classes": str(classes),
            "device": options.device,
            "mean": ",".join([str(MEAN)] * 3),
            "seed": str(options.seed),
            "size": str(SIZE),
            "std": ",".join([str(STD)] * 3),
            "steps": str(options.steps),
        },
    )
    print(f"accuracy on held-out faces {100 * found:.1f} %; {options.output}")


if __name__ == "__main__":
    main()
