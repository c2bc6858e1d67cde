"""Closed-form mimicry against gradient descent and a VAE, on the backbones that are at hand.

Example::

    python -m experiments.studies.source_speed --weights ../shared/weights --steps 1000

Prints a table: relative error and cosine of the target weights, the worst layer's feature cosine
on random images, seconds, and how many times slower than the closed form.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from experiments.command.source_quality import Comparison, compare_sources
from recast_core.backbones import load_backbone
from recast_core.config import RecastConfig
from recast_core.files import write_atomically
from recast_core.sources import Gradient, Vae

# File and preset of the paper.
BACKBONES = (
    ("resnet56-4bfd9763.th", "recast-resnet"),
    ("resnet34_32px.safetensors", "recast-resnet"),
    ("vit_small_p4_32px.safetensors", "recast-att+mlp"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit code is 0 also where backbones are skipped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--only", help="part of a file name")
    parser.add_argument("--methods", default="closed-form,gradient,vae", help="with commas")
    parser.add_argument("--steps", type=int, default=Gradient().steps, help="of gradient descent")
    parser.add_argument("--vae-steps", type=int, default=Vae().steps)
    parser.add_argument("--images", type=int, default=8, help="random images for the features")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console()
    report: list[dict[str, Any]] = []
    for name, preset in BACKBONES:
        if options.only and options.only not in name:
            continue
        path = options.weights / name
        if not path.is_file():
            console.print(
                f"skipped {name}: no such file in {options.weights}; name its folder with --weights"
            )
            continue
        rows = _compare(path, preset, options)
        console.print(_table(f"{name}, {preset}", rows))
        report += [{"backbone": name, "preset": preset, **asdict(row)} for row in rows]
    if options.json:
        write_atomically(options.json, (json.dumps(report, indent=2) + "\n").encode())
    return 0


def _compare(path: Path, preset: str, options: Any) -> list[Comparison]:
    backbone = load_backbone(f"file:{path}")
    config = RecastConfig.preset(preset)
    size = backbone.preprocess.size
    images = torch.randn(options.images, 3, size, size, generator=torch.Generator().manual_seed(0))
    return compare_sources(
        backbone.model,
        config,
        options.methods.split(","),
        images,
        {
            "gradient": Gradient(steps=options.steps, sets=config.sets),
            "vae": Vae(steps=options.vae_steps),
        },
    )


def _table(title: str, rows: Sequence[Comparison]) -> Table:
    table = Table(title=title)
    columns = ("method", "relative error", "cosine", "worst feature cosine", "logits", "seconds")
    for column in (*columns, "times slower"):
        table.add_column(column, no_wrap=column == "method")
    for row in rows:
        table.add_row(
            row.method,
            f"{row.relative_error:.1e}",
            f"{row.cosine:.6f}",
            f"{min(row.feature_cosine.values()):.6f}",
            f"{row.logit_error:.1e}",
            f"{row.seconds:.3f}",
            f"{row.seconds / rows[0].seconds:.0f}",
        )
    return table


if __name__ == "__main__":
    raise SystemExit(main())
