"""What studies measured, as rows of a file that the package carries: `docs/results/README.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from torch import nn

from recast_core.errors import RecastError
from recast_core.files import read_text, write_atomically

FORMAT = 1
ALL_LABELS = -1
_PACKAGED = "results.json"
KINDS = ("batch-norm", "layer-norm", "other")


@dataclass(frozen=True)
class Result:
    """One method on one task of one backbone, over some seeds. Accuracies are 0 to 1.

    Attributes:
        study: which study; rows of one study are comparable.
        backbone: a name for people.
        kind: of its normalisation, one of ``KINDS``.
        parameters: of the backbone without its classifier.
        task: in the task grammar.
        clients: how many.
        labels: labelled images in the whole fleet, -1 for all.
        method: as ``--method`` takes it.
        bank: of method ``recast``: ``own``, ``shifts``, ``task-vectors``; else empty.
        head: as ``--head`` takes it.
        bits: width of an update's numbers.
        numbers: how many an update has.
        update_bytes: of one serialised update; 0 where nothing is sent.
        seeds: how many runs.
        accuracy: their mean.
        lowest: of the runs.
        highest: of the runs.
        zero_byte_accuracy: of the study's best method that sends nothing, same task and labels.
        held_out: the family of shifts that the bank had not seen; empty where there is none.
        statistics: ``frozen`` or ``recompute``.
    """

    study: str
    backbone: str
    kind: str
    parameters: int
    task: str
    clients: int
    labels: int
    method: str
    bank: str
    head: str
    bits: int
    numbers: int
    update_bytes: int
    seeds: int
    accuracy: float
    lowest: float
    highest: float
    zero_byte_accuracy: float
    held_out: str = ""
    statistics: str = "frozen"

    @property
    def gain(self) -> float:
        """Over the best method that sends nothing."""
        return self.accuracy - self.zero_byte_accuracy


def load_results(path: Path | None = None) -> tuple[Result, ...]:
    """Read results; keys that a row has besides those of `Result` are left alone.

    Args:
        path: of a file; ``None`` for the one that the package carries.

    Raises:
        RecastError: no such file, or not of this form.
    """
    name = str(path or _PACKAGED)
    try:
        if path is None:
            text = (resources.files("experiments.report") / _PACKAGED).read_text("utf-8")
        else:
            text = read_text(path)
        content = json.loads(text)
        found, rows = content["format"], content["rows"]
        if found != FORMAT:
            raise RecastError(f"{name} has format {found}: this version reads {FORMAT}")
        return tuple(_result(row, f"row {place} of {name}") for place, row in enumerate(rows))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        cause = " ".join(str(error).split())[:80]
        raise RecastError(
            f"cannot read results {name} ({cause}): it must hold what docs/results/README.md says"
        ) from error


def save_results(path: Path, rows: Iterable[Result]) -> None:
    """Write results; a link is followed, so that the package's own file can be written.

    Raises:
        RecastError: the file cannot be written.
    """
    content = {"format": FORMAT, "rows": [asdict(row) for row in rows]}
    write_atomically(path.resolve(), (json.dumps(content, indent=1) + "\n").encode())


def parameters_of(model: nn.Module, head: str) -> int:
    """How many a model has without its classifier, the module ``head``."""
    inside = sum(parameter.numel() for parameter in model.get_submodule(head).parameters())
    return sum(parameter.numel() for parameter in model.parameters()) - inside


def kind_of(model: nn.Module) -> str:
    """Which of ``KINDS`` a model is: only batch norm has statistics that can be recomputed."""
    modules = list(model.modules())
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules):
        return "batch-norm"
    return "layer-norm" if any(isinstance(module, nn.LayerNorm) for module in modules) else "other"


def _result(row: Mapping[str, Any], what: str) -> Result:
    types = get_type_hints(Result)
    values = {}
    for field in fields(Result):
        if field.name in row:
            value, wanted = row[field.name], types[field.name]
            if wanted is float and type(value) is int:
                value = float(value)
            if type(value) is not wanted:
                raise ValueError(f"{field.name} of {what} is {value!r}")
            values[field.name] = value
    result = Result(**values)
    if result.kind not in KINDS or not 0 <= result.accuracy <= 1:
        raise ValueError(f"{what} has kind {result.kind!r}, accuracy {result.accuracy}")
    return result
