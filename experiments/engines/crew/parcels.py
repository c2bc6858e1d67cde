"""Work and what came of it, as bytes: by node numbers, since a worker has the model and images."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from client.turn import Exam, Guess, Lesson, Look
from experiments.engines.folded.data import NodeRows
from experiments.engines.folded.models import FoldedModel
from recast_core.classes import Names
from recast_core.errors import RecastError
from recast_core.learner import Learned
from recast_core.wire.messages import RefusedError

OneWork: TypeAlias = (
    Lesson[FoldedModel, NodeRows]
    | Look[FoldedModel, NodeRows]
    | Exam[FoldedModel, NodeRows]
    | Guess[FoldedModel, NodeRows]
)


@dataclass(frozen=True)
class Parcel:
    """Work of several nodes on one task.

    Attributes:
        model: identity of its start.
        source: of the task's images.
        classes: what the labels are to count in.
        numbers: of the nodes.
        works: of each, without its model and data.
    """

    model: bytes
    source: str
    classes: Names
    numbers: Sequence[int]
    works: Sequence[OneWork]


def pack(works: Sequence[OneWork]) -> bytes:
    """A parcel of works that have model and task in common."""
    first = works[0]
    bare: list[Any] = [replace(one, model=None, data=None) for one in works]  # type: ignore[arg-type]
    parcel = Parcel(
        first.model.start.sha256,
        first.data.origin,
        first.data.class_names,
        [one.data.number for one in works],
        bare,
    )
    return pickle.dumps(parcel, pickle.HIGHEST_PROTOCOL)


def unpack(content: bytes) -> Parcel:
    """What ``pack`` made, in a process that was started by the one that did."""
    parcel: Parcel = pickle.loads(content)
    return parcel


def pack_results(results: Iterable[Any] | Exception) -> bytes:
    """What came of a parcel: what was learned, features, counts or logits; or what was raised."""
    found: Any
    if isinstance(results, Exception):
        found = _plain(results)
    else:
        found = [_plain(one) for one in results]
        if found and all(isinstance(one, Learned) for one in found):
            found = _stacked(found)
    return pickle.dumps(found, pickle.HIGHEST_PROTOCOL)


def unpack_results(content: bytes, *, tensors: bool) -> list[Any]:
    """What ``pack_results`` was given, arrays as ``tensors`` where these are expected.

    Raises:
        RecastError: it was raised by the work.
        RefusedError: likewise.
    """
    found = pickle.loads(content)
    if isinstance(found, _Stacked):
        return [Learned(*one) for one in zip(found.vectors, found.losses, strict=True)]
    if isinstance(found, tuple):
        raise _error(found)
    return [_full(one, tensors) for one in found]


@dataclass(frozen=True, eq=False)
class _Stacked:
    """What lessons came to: vectors ``[J, D]`` as one array, and losses."""

    vectors: NDArray[np.float32]
    losses: Sequence[float]


def _stacked(learned: Sequence[Learned]) -> Any:
    """Vectors as the rows of one array, which takes a tenth of the time to send."""
    if len({one.vector.shape for one in learned}) > 1:
        return learned
    return _Stacked(np.stack([one.vector for one in learned]), [one.loss for one in learned])


def _plain(value: Any) -> Any:
    match value:
        case torch.Tensor():
            return value.numpy(force=True)
        case RefusedError():
            return "refused", value.reason, str(value)
        case RecastError():
            return "failed", "", str(value)
    return value


def _full(value: Any, tensors: bool) -> Any:
    if isinstance(value, Learned):
        return value
    if isinstance(value, tuple):
        return _error(value)
    return torch.from_numpy(value) if tensors and isinstance(value, np.ndarray) else value


def _error(told: tuple[str, str, str]) -> Exception:
    kind, reason, text = told
    return RefusedError(reason, text) if kind == "refused" else RecastError(text)
