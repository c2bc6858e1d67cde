"""``recast mimic``: a bank from a backbone, and how faithful it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.warnings import warn_of_many
from recast_core.backbones import load_backbone
from recast_core.config import RecastConfig
from recast_core.errors import RecastError
from recast_core.mimicry import mimic as make_bank
from recast_core.mimicry import relative_error


def mimic(backbone: str, config: RecastConfig, method: str, output: Path | None) -> dict[str, Any]:
    """Make the bank, write it to ``output``, print and return how well it mimics."""
    if method != "closed-form":
        raise RecastError(f"unknown method {method!r}: choose closed-form")
    model = load_backbone(backbone).model
    began = time.perf_counter()
    bank = make_bank(model, config)
    seconds = time.perf_counter() - began
    error, cosine = relative_error(model, bank)
    warn_of_many(bank.trained)
    if output is not None:
        bank.save(output)
    console = Console()
    console.print(
        f"{method}: relative error {error:.2e}, cosine {cosine:.6f}, {seconds:.3f} s, "
        f"{len(bank.groups)} groups, {bank.template_count} templates, {bank.sent} coefficients"
    )
    if output is not None:
        console.print(f"{output}: {output.stat().st_size:,} bytes, SHA-256 {bank.sha256.hex()}")
    return {
        "method": method,
        "relative_error": error,
        "cosine": cosine,
        "seconds": seconds,
        "sha256": bank.sha256.hex(),
    }
