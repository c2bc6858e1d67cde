"""``recast mimic``: a bank from a backbone, and how faithful it is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor

from client.data import load_dataset, parse_task
from experiments.command.caution import warn_of_lone_layers, warn_of_many
from experiments.command.console import stdout
from experiments.command.source_quality import compare_sources, feature_cosines
from experiments.command.usual import config_for
from recast_core.backbones import Backbone, load_backbone
from recast_core.choices import unknown
from recast_core.config import RecastConfig
from recast_core.errors import RecastError
from recast_core.mimicry import mimic as make_bank
from recast_core.mimicry import relative_error
from recast_core.sources import SOURCES

IMAGES = 64


def mimic(
    backbone: str, values: Mapping[str, Any], method: str, output: Path | None, data: str
) -> dict[str, Any]:
    """Make the bank, write it to ``output``, print and return how well it mimics.

    ``values`` are options of a bank; method ``all`` compares every method instead; ``data`` names
    the images that features are compared on.
    """
    if method == "all":
        if output is not None:
            raise RecastError("--method all compares and writes no bank: name one method with -o")
        loaded = load_backbone(backbone)
        return _compare(loaded, config_for(loaded, values), _alone(), data)
    known = _alone()
    if method not in known:
        raise RecastError(unknown("method", method, [*known, "all"]))
    loaded = load_backbone(backbone)
    config = config_for(loaded, values)
    residual = config.residual or SOURCES[method].residual
    began = time.perf_counter()
    bank = make_bank(loaded.model, replace(config, source=method, residual=residual))
    seconds = time.perf_counter() - began
    error, cosine = relative_error(loaded.model, bank)
    warn_of_many(bank)
    warn_of_lone_layers(bank)
    if output is not None:
        bank.save(output)
    console = stdout()
    console.print(
        f"{method}: relative error {error:.2e}, cosine {cosine:.6f}, {seconds:.3f} s, "
        f"{len(bank.groups)} groups, {bank.template_count} templates, {bank.sent} coefficients",
        highlight=False,
    )
    if data:
        features, logits = feature_cosines(loaded.model, bank, _images(loaded, data))
        console.print(
            f"features on {IMAGES} images of {data}: cosine {min(features.values()):.6f} in the "
            f"worst layer, logits differ by {logits:.1e} at most",
            highlight=False,
        )
    if output is not None:
        console.print(f"{output}: {output.stat().st_size:,} bytes", highlight=False)
        console.print(f"SHA-256 {bank.sha256.hex()}", highlight=False, soft_wrap=True)
    return {
        "method": method,
        "relative_error": error,
        "cosine": cosine,
        "seconds": seconds,
        "sha256": bank.sha256.hex(),
    }


def _alone() -> list[str]:
    """The sources that need nothing but the backbone."""
    return [name for name, kind in SOURCES.items() if kind.alone]


def _compare(
    backbone: Backbone, config: RecastConfig, methods: Sequence[str], data: str
) -> dict[str, Any]:
    images = _images(backbone, data or "digits")
    rows = compare_sources(backbone.model, config, methods, images)
    table = Table(title=f"{backbone.spec}: the same groups, by each method")
    for name in ("method", "relative error", "weight cosine", "worst feature cosine", "seconds"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in rows:
        table.add_row(
            row.method,
            f"{row.relative_error:.2e}",
            f"{row.cosine:.6f}",
            f"{min(row.feature_cosine.values()):.6f}",
            f"{row.seconds:.3f}",
        )
    stdout().print(table)
    return {
        "methods": [
            {
                "method": row.method,
                "relative_error": row.relative_error,
                "cosine": row.cosine,
                "feature_cosine": dict(row.feature_cosine),
                "seconds": row.seconds,
            }
            for row in rows
        ]
    }


def _images(backbone: Backbone, data: str) -> Tensor:
    dataset = load_dataset(parse_task(data), backbone.preprocess.size)
    return backbone.preprocess(dataset.x_train[:IMAGES])
