"""A whole step as one CUDA graph: with few clients launching takes longer than computing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recast_core.errors import RecastError
from recast_core.folded.fold import Fold
from recast_core.folded.images import ImageStore
from recast_core.folded.schedule import Schedule
from recast_core.folded.step import State, take_step
from recast_core.objectives import Objective
from recast_core.pulse import advance

# Images in a step: with more the device is busy anyway, and a graph keeps its memory for itself.
GRAPH_ROWS = 2048
# Warming up and capturing cost about as many steps.
_WORTH = 8
_WARM_UP = 3
# So much more work is less than what launching it takes.
_PADDING = 1.25
# Chunks of one round have two sizes at most.
_KEPT = 2
_log = logging.getLogger(__name__)


class CapturedStep:
    """A step whose tensors stay where they are: replayed, whatever is written into them.

    Attributes:
        state: of the chunk that it trains.
    """

    def __init__(
        self, fold: Fold, store: ImageStore, objective: Objective, state: State, plan: Schedule
    ) -> None:
        """Capture a step of ``plan``, which has equal steps, on the device, within ``training()``.

        Raises:
            RecastError: no coefficient reaches the loss.
            RuntimeError: an operation that no graph can hold.
        """
        self.state = state
        self.made_for = fold, store, objective
        self._shape = _shape(plan)
        local, mix = (None if t is None else t.clone() for t in (plan.local, plan.mix))
        rows, labels, ids, rates = (table[:1].clone() for table in plan.tables)
        self._now = Schedule(plan.shapes[:1], plan.classes, rows, labels, ids, rates, local, mix)

        def step() -> None:
            take_step(fold, store, objective, state, next(self._now.steps()))

        self._replay = _captured(step, fold.device)

    def fits(self, fold: Fold, store: ImageStore, objective: Objective, plan: Schedule) -> bool:
        """Whether it is the step of this training."""
        its_fold, its_store, its_objective = self.made_for
        same = its_fold is fold and its_store is store and its_objective.same(objective)
        return same and self._shape == _shape(plan)

    def run(self, values: Tensor, plan: Schedule, images: list[int]) -> None:
        """All steps of ``plan``, from ``values``: the result is in ``state``."""
        self.state.restart(values)
        now = self._now
        if now.local is not None and plan.local is not None:
            now.local.copy_(plan.local)
        if now.mix is not None and plan.mix is not None:
            now.mix.copy_(plan.mix)
        for number, shown in enumerate(images):
            for held, table in zip(now.tables, plan.tables, strict=True):
                held.copy_(table[number : number + 1])
            self._replay()
            advance(shown)


def _shape(plan: Schedule) -> tuple[object, ...]:
    return plan.rows.shape[1:], plan.classes, plan.local is None, plan.mix is None


def _captured(step: Callable[[], None], device: torch.device) -> Callable[[], object]:
    """``step`` as a graph; itself where there are no graphs."""
    if device.type != "cuda":
        return step
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@dataclass(eq=False)
class Graphs:
    """Captured steps, kept between trainings.

    Attributes:
        rows: images in a step, above which none is captured.
        worth: steps, below which none is.
        captured: how many were.
        failed: why capturing was given up, if it was.
    """

    rows: int = GRAPH_ROWS
    worth: int = _WORTH
    captured: int = 0
    failed: str = ""
    _kept: list[CapturedStep] = field(default_factory=list)

    def suits(self, ragged: Schedule) -> bool:
        """Whether steps of equal shapes do little more than these, and are small."""
        if self.failed or not ragged.shapes:
            return False
        clients, half = ragged.rows.shape[1], ragged.rows.shape[3]
        needed = sum(active * rows for active, rows in ragged.shapes)
        padded = clients * half * len(ragged.shapes)
        return 2 * clients * half <= self.rows and padded <= _PADDING * needed

    def find(
        self, fold: Fold, store: ImageStore, objective: Objective, plan: Schedule, values: Tensor
    ) -> CapturedStep | None:
        """The step of this training, captured now where that is worth it; else ``None``.

        Raises:
            OutOfMemoryError: of the device; nothing is kept then.
            RecastError: no coefficient reaches the loss.
        """
        for kept in self._kept:
            if kept.fits(fold, store, objective, plan):
                return kept
        if len(plan.shapes) < self.worth:
            return None
        try:
            made = CapturedStep(fold, store, objective, State.at(values.clone()), plan)
        except (torch.OutOfMemoryError, RecastError):
            self._kept.clear()
            raise
        except RuntimeError as error:
            # Slower without, and right.
            self.failed = (str(error).splitlines() or ["unknown"])[0]
            self._kept.clear()
            _log.info("no CUDA graph of the training step: %s", self.failed)
            return None
        self.captured += 1
        self._kept = [made, *self._kept][:_KEPT]
        return made
