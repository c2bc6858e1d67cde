"""What recombination costs: attached against plain, coefficient steps against full fine-tuning.

``python -m experiments.studies.overhead --device cuda --json overhead.json``. Needs torch and
torchvision alone. All of a target's variants run in turn, again and again, and medians are
compared, so that a machine that is busy with something else slows them alike.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recast_core.backbones import load_backbone
from recast_core.bank import TemplateBank
from recast_core.config import RecastConfig
from recast_core.errors import RecastError
from recast_core.files import write_atomically
from recast_core.library import TaskLibrary
from recast_core.methods import Full, Recast
from recast_core.methods.base import MethodModel
from recast_core.mimicry import mimic
from recast_core.model import attach

VIT_SMALL = "vit-small"
TASKS, MIXED_ROWS, CLASSES = 8, 64, 10
COLUMNS = (
    ("target", "target"),
    ("coefficients", "sent"),
    ("plain_ms", "plain ms"),
    ("attached", "attached / plain"),
    ("merged", "merged / plain"),
    ("step", "step / full step"),
    ("step_mb", "step MB"),
    ("full_step_mb", "full step MB"),
    ("swap_ms", "swap ms"),
    ("mixed", "mixed / one task"),
)
Row = Mapping[str, str | int | float | None]


def measure(
    backbone: nn.Module, size: int, config: RecastConfig, device: str, batch: int, repeats: int
) -> Row:
    """One row of the table.

    Args:
        backbone: on any device; not changed.
        size: height and width of its images.
        config: what to attach.
        device: where to measure.
        batch: images of a forward pass and of a step; mixed batches have 64 rows of 8 tasks.
        repeats: of each variant after one to warm up.

    Returns:
        Ratios of median times; ``swap_ms`` of ``TaskLibrary.activate``. ``step_mb`` and
        ``full_step_mb`` are what a training step holds besides activations: weights, templates,
        gradients and optimizer state; ``None`` off CUDA.
    """
    plain = copy.deepcopy(backbone).to(device)
    bank = mimic(backbone, config)
    net = attach(copy.deepcopy(backbone), bank).to(device)
    merged = net.copy().merge()
    tasks = _tasks(net.features(torch.zeros(1, 3, size, size, device=device)).shape[1], bank)
    tasks.activate(net, "0")
    coefficients = Recast().prepare(net)
    full = Full().prepare(copy.deepcopy(plain))
    images = torch.randn(batch, 3, size, size, device=device)
    rows = torch.randn(MIXED_ROWS, 3, size, size, device=device)
    names = [str(index % TASKS) for index in range(MIXED_ROWS)]
    labels = torch.arange(batch, device=device) % CLASSES
    models = {"step": coefficients, "full": full}
    steps = {name: _step(model, images, labels) for name, model in models.items()}
    with torch.no_grad():
        milliseconds = medians(
            {
                "plain": lambda: plain(images),
                "attached": lambda: net(images),
                "merged": lambda: merged(images),
                "single": lambda: net(rows),
                "mixed": lambda: tasks.mixed(net, rows, names),
                "swap": lambda: tasks.activate(net, "1"),
                **{name: torch.enable_grad()(step) for name, step in steps.items()},
            },
            device,
            repeats,
        )
    prepare = {
        "step": lambda: Recast().prepare(attach(copy.deepcopy(backbone), bank).to(device)),
        "full": lambda: Full().prepare(copy.deepcopy(backbone).to(device)),
    }
    memory = _memory(prepare, images, labels) if device.startswith("cuda") else {}
    return {
        "target": str(config.target),
        "coefficients": bank.sent,
        **_ratios(milliseconds, memory),
    }


def _ratios(milliseconds: Mapping[str, float], memory: Mapping[str, float]) -> Row:
    return {
        "plain_ms": milliseconds["plain"],
        "attached": milliseconds["attached"] / milliseconds["plain"],
        "merged": milliseconds["merged"] / milliseconds["plain"],
        "step": milliseconds["step"] / milliseconds["full"],
        "step_mb": memory.get("step"),
        "full_step_mb": memory.get("full"),
        "swap_ms": milliseconds["swap"],
        "mixed": milliseconds["mixed"] / milliseconds["single"],
    }


def medians(
    variants: Mapping[str, Callable[[], object]], device: str, repeats: int
) -> dict[str, float]:
    """Median milliseconds of each variant, all of them in turn ``repeats`` times."""

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, call in variants.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}


def _tasks(width: int, bank: TemplateBank) -> TaskLibrary:
    tasks = TaskLibrary(bank)
    generator = torch.Generator().manual_seed(0)
    for index in range(TASKS):
        offset = 0.05 * torch.randn(bank.sent, generator=generator)
        tasks.add(str(index), bank.initial_vector + offset, nn.Linear(width, CLASSES))
    return tasks


def _step(model: MethodModel, images: Tensor, labels: Tensor) -> Callable[[], None]:
    head = nn.Linear(model.features(images[:1]).shape[1], CLASSES, device=images.device)
    head.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=1e-5)

    def step() -> None:
        loss = F.cross_entropy(head(model.features(images)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _memory(
    prepare: Mapping[str, Callable[[], MethodModel]], images: Tensor, labels: Tensor
) -> dict[str, float]:
    """MiB that stay after a step: weights, templates, gradients and optimizer state."""
    held = {}
    for name, make in prepare.items():
        gc.collect()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        model = make()
        step = _step(model, images, labels)
        step()
        torch.cuda.synchronize()
        held[name] = (torch.cuda.memory_allocated() - before) / 2**20
        del model, step
    return held


def print_table(rows: Sequence[Row]) -> None:
    """The rows as a Markdown table on stdout."""
    print("| " + " | ".join(title for _, title in COLUMNS) + " |")
    print("|" + " --- |" * len(COLUMNS))
    for row in rows:
        cells = [_cell(row[key]) for key, _ in COLUMNS]
        print("| " + " | ".join(cells) + " |")


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _load(spec: str) -> tuple[nn.Module, int]:
    if spec != VIT_SMALL:
        loaded = load_backbone(spec)
        return loaded.model, loaded.preprocess.size
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(32, 4, 12, 6, 384, 1536, num_classes=200).eval(), 32


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.overhead",
        description="Measure what recombination costs against the plain backbone.",
        epilog="example: python -m experiments.studies.overhead --device cuda --targets mlp,attn",
    )
    parser.add_argument(
        "--backbone", default=VIT_SMALL, help="BACKBONE, or vit-small (random weights at 32 px)"
    )
    parser.add_argument("--targets", default="attn,mlp,attn+mlp", help="presets, by commas")
    parser.add_argument("--groups", type=int, default=6, help="groups per bucket, 0 for one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=32, help="images of a forward pass")
    parser.add_argument("--repeats", type=int, default=7, help="of each variant")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU, 0 for torch's choice")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        backbone, size = _load(options.backbone)
        rows = [
            measure(
                backbone,
                size,
                RecastConfig(target=target, groups=options.groups or None),
                options.device,
                options.batch,
                options.repeats,
            )
            for target in options.targets.split(",")
        ]
    except RecastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_table(rows)
    if options.json:
        report = {
            "backbone": options.backbone,
            "device": options.device,
            "batch": options.batch,
            "torch": torch.__version__,
            "rows": rows,
        }
        write_atomically(options.json, json.dumps(report, indent=1).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
