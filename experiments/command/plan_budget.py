"""``recast plan --budget``: which methods' updates fit, best first by what was measured."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table
from torch import nn

from experiments.command.console import stdout
from experiments.command.plan_measured import Candidate, Measured, choose_study
from experiments.report.results import ALL_LABELS, kind_of, load_results, parameters_of
from protos import recast_v1_pb2 as pb
from recast_core.backbones import Backbone, load_backbone
from recast_core.banks import PACKAGED
from recast_core.config import RecastConfig
from recast_core.errors import RecastError
from recast_core.methods import parse_method
from recast_core.mimicry import mimic
from recast_core.targets import PRESETS
from recast_core.wire.codec import WIDTHS, encoded_length
from server.prepare import OWN_BANK

SHIFT_BANK = 48
"""Coefficients of a bank as ``recast bank`` makes it if it is not told otherwise."""
FEW_BITS = 4
"""Of a number; what fewer do not say of an update is added to the next."""
# Tasks that are named below the table.
_SHOWN = 6


def plan_budget(
    backbone: str, budget: int, labels: int = ALL_LABELS, results: Path | None = None
) -> dict[str, Any]:
    """Print the methods whose update has at most so many bytes, and return them as JSON values.

    Each has the widest numbers, of at most 8 bits, that fit.

    Args:
        backbone: see ``load_backbone``.
        budget: bytes of one serialised update.
        labels: labelled images in the whole fleet, -1 for all; the nearest measured counts.
        results: what was measured; ``None`` for what the package carries.

    Raises:
        RecastError: a backbone, budget or results that cannot be had.
    """
    if budget < 0:
        raise RecastError(f"budget is {budget}: give the bytes that an update may have")
    if labels < ALL_LABELS:
        raise RecastError(f"labels is {labels}: give a number, 0 for none or -1 for all")
    loaded = load_backbone(backbone, weights=False)
    kind, parameters = kind_of(loaded.model), parameters_of(loaded.model, loaded.head)
    measured = choose_study(load_results(results), kind, parameters, labels, backbone)
    rows = []
    packaged = backbone if backbone in PACKAGED else ""
    for candidate in candidates(loaded, kind, packaged):
        bits = widest(candidate.numbers, budget, starts=candidate.starts)
        if bits is not None:
            rows.append(_row(candidate, bits, measured))
    # Stable: what was not measured stays in the order of the candidates, after what was.
    rows.sort(key=lambda row: -math.inf if row["gain"] is None else row["gain"], reverse=True)
    report = {
        "budget": budget,
        "labels": labels,
        "measured": _about(measured),
        "methods": rows,
    }
    _show(backbone, budget, rows, measured)
    return report


def candidates(backbone: Backbone, kind: str, packaged: str = "") -> Iterator[Candidate]:
    """What could train on this backbone, fewest numbers first.

    Args:
        backbone: see ``load_backbone``.
        kind: of its normalisation.
        packaged: the name of a bank of it that the package carries; empty for none.
    """
    if kind == "batch-norm":
        yield Candidate(
            "statistics recomputed",
            "head-only",
            "",
            0,
            "--method head-only --head backbone --statistics recompute",
            ("backbone",),
        )
    yield Candidate(
        "local head", "head-only", "", 0, "--method head-only --head local", ("local", "linear")
    )
    options = f"--bank {packaged or 'BANK'} --head backbone"
    yield Candidate("shift bank", "recast", "shifts", SHIFT_BANK, options, starts=True)
    for target in PRESETS:
        numbers = _own_weights(backbone.model, target)
        if numbers:
            options = f"--bank {OWN_BANK} --target {target}" if packaged else f"--target {target}"
            yield Candidate(f"own weights, {target}", "recast", "own", numbers, options)
    target = "conv" if kind == "batch-norm" else "attn"
    for title, spec in (
        ("norm groups 1", "norm-groups:1"),
        ("norm groups 4", "norm-groups:4"),
        ("TinyLoRA 12 x 4", f"tiny-lora:12:4:{target}"),
        ("TinyLoRA 48 x 4", f"tiny-lora:48:4:{target}"),
        ("norm groups 16", "norm-groups:16"),
        ("LoRA-XS 2", "lora-xs:2"),
        ("LoRA-XS 4", "lora-xs:4"),
        ("LoRA-XS 8", "lora-xs:8"),
        ("VeRA 16", "vera:16"),
        ("norm affine", "norm-affine"),
        ("LoRA r1", "lora:1"),
        ("LoRA r4", "lora:4"),
        ("CLR", "clr"),
        ("AdaptFormer", "adaptformer"),
        ("Piggyback", "piggyback"),
        ("whole model (FedAvg)", "full"),
    ):
        numbers = _numbers(backbone.model, spec, target)
        if numbers:
            yield Candidate(title, spec, "", numbers, f"--method {spec}")


def widest(numbers: int, budget: int, *, starts: bool = False) -> int | None:
    """The most bits a number, up to 8, with which an update fits; 0 where nothing is sent."""
    if not numbers:
        return 0
    widths = (bits for bits in WIDTHS if bits <= 8)
    fitting = (bits for bits in widths if update_length(numbers, bits, starts=starts) <= budget)
    return next(fitting, None)


def update_length(numbers: int, bits: int, *, starts: bool = False) -> int:
    """The length of the longest serialised update of a task, counted.

    Args:
        numbers: that it has.
        bits: of each.
        starts: in its first round it may name the earlier task that it started at.
    """
    update = pb.Update(bank=1, task=9, round=100, examples=1000, scale=1.0)
    update.started = 8 if starts else 0
    update.coefficients = bytes(encoded_length(numbers, bits))
    return len(pb.ToServer(update=update).SerializeToString())


def _own_weights(model: nn.Module, target: str) -> int:
    try:
        return mimic(model, RecastConfig(target=target)).sent
    except RecastError:
        return 0


def _numbers(model: nn.Module, spec: str, target: str) -> int:
    """How many numbers a method sends; 0 where it finds nothing in this model to train."""
    try:
        return parse_method(spec, target).prepare(copy.deepcopy(model)).sent_count
    except RecastError:
        return 0


def _row(candidate: Candidate, bits: int, measured: Measured) -> dict[str, Any]:
    own = measured.of(candidate, bits)
    return {
        "method": candidate.title,
        "numbers": candidate.numbers,
        "bits": bits,
        "update_bytes": _length(candidate, bits),
        "run": candidate.run + _bits(candidate, bits),
        "gain": fmean(row.gain for row in own) if own else None,
        "accuracy": fmean(row.accuracy for row in own) if own else None,
        "tasks": len({row.task for row in own}),
        "measured_bits": own[0].bits if own and candidate.numbers else None,
    }


def _bits(candidate: Candidate, bits: int) -> str:
    """The width as an option, with what the studies measured such widths with."""
    if not candidate.numbers:
        return ""
    return f" --bits {bits}" + (" --error-feedback" if bits < FEW_BITS else "")


def _length(candidate: Candidate, bits: int) -> int:
    if not candidate.numbers:
        return 0
    return update_length(candidate.numbers, bits, starts=candidate.starts)


def _about(measured: Measured) -> dict[str, Any] | None:
    if not measured.rows:
        return None
    first = measured.rows[0]
    return {
        "study": first.study,
        "backbone": first.backbone,
        "same_backbone": measured.same,
        "this_backbone": measured.named,
        "parameters": first.parameters,
        "labels": first.labels,
        "clients": first.clients,
        "seeds": max(row.seeds for row in measured.rows),
        "tasks": len({row.task for row in measured.rows}),
        "zero_byte_accuracy": fmean({r.task: r.zero_byte_accuracy for r in measured.rows}.values()),
        "data": list(dict.fromkeys(row.task for row in measured.rows)),
    }


def _show(backbone: str, budget: int, rows: Sequence[dict[str, Any]], measured: Measured) -> None:
    about = _about(measured)
    tasks = about["tasks"] if about else 0
    table = Table(title=f"{backbone}: updates of at most {budget:,} bytes, best first")
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "method": lambda row: str(row["method"]),
        "numbers": lambda row: f"{row['numbers']:,}",
        "bits": lambda row: str(row["bits"] or ""),
        "update": lambda row: f"{row['update_bytes']:,} B",
        "gain": _gain,
        "accuracy": lambda row: _accuracy(row, tasks),
        "options": lambda row: str(row["run"]),
    }
    for name in columns:
        right = name in ("numbers", "bits", "update", "gain", "accuracy")
        table.add_column(name, justify="right" if right else "left")
    for row in rows:
        table.add_row(*(text(row) for text in columns.values()))
    stdout().print(table)
    stdout().print(_source(about), soft_wrap=True, highlight=False)


def _gain(row: dict[str, Any]) -> str:
    if row["gain"] is None:
        return "not measured"
    other = row["measured_bits"] not in (None, row["bits"])
    return f"{100 * row['gain']:+.1f}" + (f" at {row['measured_bits']} bits" if other else "")


def _accuracy(row: dict[str, Any], tasks: int) -> str:
    """With how many of the study's tasks, where these are not all: others are not comparable."""
    if row["accuracy"] is None:
        return ""
    few = f", {row['tasks']} of {tasks} tasks" if row["tasks"] < tasks else ""
    return f"{100 * row['accuracy']:.1f} %{few}"


def _source(about: dict[str, Any] | None) -> str:
    if about is None:
        return "nothing was measured on a backbone of this kind: the order is that of the numbers"
    labels = "all" if about["labels"] == ALL_LABELS else f"{about['labels']:,}"
    where = (
        f"{about['backbone']} (another network of this kind, {about['parameters']:,} parameters)"
    )
    if about["this_backbone"]:
        where = f"{about['backbone']} itself"
    elif about["same_backbone"]:
        where = f"{about['backbone']} (of this size and kind, maybe with other weights)"
    data, more = about["data"][:_SHOWN], len(about["data"]) - _SHOWN
    tasks = ", ".join(data) + (f" and {more} more" if more > 0 else "")
    seeds = "1 seed" if about["seeds"] == 1 else f"{about['seeds']} seeds"
    return (
        "gain: points over the best that sends nothing there, listed here or not "
        f"({100 * about['zero_byte_accuracy']:.1f} %), accuracy: the mean over tasks; study "
        f"{about['study']} on {where}: {tasks}; {about['clients']} clients, {labels} labels, "
        f"{seeds}"
    )
