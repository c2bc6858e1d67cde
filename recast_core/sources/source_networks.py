"""Source networks: fine-tuned under one shift each, kept in a folder as far as they have come."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from recast_core.errors import RecastError
from recast_core.files import read_bytes, write_atomically
from recast_core.recipe import Recipe
from recast_core.sources.fine_tune import FineTuner, Losses
from recast_core.sources.forms import Everything
from recast_core.unbroken import unbroken

_PLAN = "plan.json"


@dataclass(frozen=True)
class Wanted:
    """A source network that is to be made.

    Attributes:
        name: what its images underwent.
        images: makes them: float ``[N, 3, H, W]``, as the network takes them.
        seed: of the shuffling, together with the source's number.
    """

    name: str
    images: Callable[[], Tensor]
    seed: int = 0


@dataclass(frozen=True, eq=False)
class SourceNetwork:
    """One that was made.

    Attributes:
        name: what its images underwent.
        losses: at the start and at the end.
        differences: from the deployed network, bfloat16 by tensor name; empty where it diverged.
    """

    name: str
    losses: Losses
    differences: Mapping[str, Tensor]


class Watcher(Protocol):
    """Who is told how far the sources have come."""

    def source(self, done: int, of: int, made: SourceNetwork, kept: bool) -> None:
        """One is there; ``kept`` says that it was so before."""


class SourceFolder:
    """Finished sources of one plan, a file each; complete or absent.

    A plan whose ``sources`` begin with those of the folder's plan goes on with it, and one whose
    sources are the first of them takes these and leaves the others.

    Args:
        path: the folder; made at the first source.
        plan: everything that the sources follow from, as plain JSON values.

    Attributes:
        spare: how many of the folder's sources the plan leaves, at most.

    Raises:
        RecastError: the folder holds sources of another plan, or cannot be read.
    """

    def __init__(self, path: Path, plan: Mapping[str, object]) -> None:
        self.path = path
        self._plan = json.dumps(plan, sort_keys=True, indent=1).encode()
        there = _read_plan(path)
        wanted: dict[str, object] = json.loads(self._plan)
        if there is None:
            there = wanted
        mine, others = wanted.get("sources"), there.get("sources")
        odd = [key for key in {**wanted, **there} if wanted.get(key) != there.get(key)]
        self.spare, self._longer = 0, False
        if isinstance(mine, list) and isinstance(others, list):
            shared = min(len(mine), len(others))
            if mine[:shared] == others[:shared]:
                odd = [key for key in odd if key != "sources"]
            self.spare, self._longer = len(others) - shared, len(mine) > shared
        if odd:
            raise RecastError(
                f"{path} holds sources of other settings or data ({', '.join(sorted(odd))}): go on "
                "with those, or remove it to start afresh"
            )

    def load(self, index: int) -> SourceNetwork | None:
        """Source ``index``, or ``None`` if it is not finished or damaged."""
        path = self._file(index)
        if not path.exists():
            return None
        try:
            with unbroken(), safe_open(path, "pt", device="cpu") as file:
                told: Any = json.loads((file.metadata() or {})["source"])
                differences = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            losses = Losses(float(told["first"]), float(told["last"]))
            return SourceNetwork(str(told["name"]), losses, differences)
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError):
            return None

    def save(self, index: int, source: SourceNetwork) -> None:
        """Keep a finished source.

        Raises:
            RecastError: the folder cannot be written.
        """
        if self._longer or not (self.path / _PLAN).exists():
            write_atomically(self.path / _PLAN, self._plan)
            self._longer = False
        told = {"name": source.name, "first": source.losses.first, "last": source.losses.last}
        content = safetensors.torch.save(
            {name: tensor.contiguous() for name, tensor in source.differences.items()},
            {"source": json.dumps(told)},
        )
        write_atomically(self._file(index), content)

    @staticmethod
    def clear(path: Path) -> None:
        """Delete the sources in ``path``, and the folder if it holds nothing else."""
        for file in [*path.glob("source-*.safetensors"), path / _PLAN]:
            file.unlink(missing_ok=True)
        with suppress(OSError):
            path.rmdir()

    def _file(self, index: int) -> Path:
        return self.path / f"source-{index:04d}.safetensors"


def _read_plan(path: Path) -> dict[str, object] | None:
    """The plan of the sources in a folder, ``None`` where there is none.

    Raises:
        RecastError: it cannot be read.
    """
    if not (path / _PLAN).exists():
        return None
    try:
        plan = json.loads(read_bytes(path / _PLAN))
    except OSError as error:
        raise RecastError(
            f"cannot read {path / _PLAN}: {error.strerror or error}; remove that folder"
        ) from error
    except (ValueError, RecursionError):
        plan = None
    if not isinstance(plan, dict):
        raise RecastError(f"{path / _PLAN} is no plan of ours: remove that folder")
    return plan


def fine_tune_sources(
    tuner: FineTuner,
    wanted: Sequence[Wanted],
    labels: Tensor,
    recipe: Recipe,
    names: Sequence[str],
    watcher: Watcher,
    folder: SourceFolder | None = None,
) -> list[SourceNetwork]:
    """Fine-tune a source for each of ``wanted``, or take it from ``folder``.

    Args:
        tuner: of everything (its form is ``Everything``).
        wanted: the sources.
        labels: int64 ``[N]``, of every source's images.
        recipe: of the fine-tuning.
        names: tensors whose differences are kept.
        watcher: is told of each.
        folder: where finished ones are kept.

    Raises:
        RecastError: no images, or a folder that cannot be written.
    """
    form = tuner.form
    assert isinstance(form, Everything)
    made: list[SourceNetwork] = []
    for index, each in enumerate(wanted):
        source = folder.load(index) if folder else None
        kept = source is not None and source.name == each.name
        if source is None or not kept:
            losses = tuner.run(each.images(), labels, recipe, each.seed * 10_007 + index)
            differences = {} if losses.diverged else form.differences(names)
            if any(not bool(torch.isfinite(tensor).all()) for tensor in differences.values()):
                differences = {}
            narrow = {name: tensor.bfloat16() for name, tensor in differences.items()}
            source = SourceNetwork(each.name, losses, narrow)
            if folder:
                folder.save(index, source)
        made.append(source)
        watcher.source(index + 1, len(wanted), source, kept)
    return made
