"""One client after another, as a step that a GPU captures and replays: any method, any bank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from experiments.studies.shift_fleet import Domain, Share
from experiments.studies.shift_learners import EVALUATED
from recast_core.backbones import Preprocess
from recast_core.folded.precision import bfloat16
from recast_core.folded.schedule import schedule
from recast_core.learner import MethodLearner
from recast_core.model import RecastModel
from recast_core.objectives import Batch, Objective, objective_of
from recast_core.recipe import Recipe
from recast_core.start import Start
from recast_core.statistics import features_by, spread_choice

_WARM_UP = 3


class BankModel:
    """An attached model, to be trained as a ``MethodModel`` is."""

    def __init__(self, net: RecastModel) -> None:
        self.net = net

    def features(self, images: Tensor) -> Tensor:
        """Features ``[N, d]``."""
        return self.net.features(images)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The coefficients."""
        return {"coefficients": self.net.coefficients.flat}

    def sent_vector(self) -> Tensor:
        """The coefficients as they are sent."""
        return self.net.coefficients.sent()

    def load_vector(self, vector: Tensor) -> None:
        """Continue from coefficients that were sent."""
        self.net.coefficients.load(vector)


@dataclass(frozen=True, eq=False)
class BankTrainee:
    """What ``CapturedLearner`` needs of a bank, named as in ``MethodLearner``."""

    model: BankModel
    preprocess: Preprocess
    start: Start
    device: torch.device

    @property
    def head(self) -> nn.Module:
        """The deployed classifier."""
        return self.model.net.own_head


class CapturedLearner:
    """A method's numbers, one client after another: on a GPU a step is captured and replayed.

    The batches are those of the folded engine, but that a client whose BatchNorms take its own
    images repeats some of a batch's images where there are fewer. On a CPU, where nothing is
    captured, a step has no padding.

    Args:
        learner: what trains.
        batch: images a step.
        half: products are bfloat16; on a CPU also where clients are judged.
    """

    def __init__(
        self, learner: MethodLearner | BankTrainee, batch: int, *, half: bool = False
    ) -> None:
        self._learner, self._half = learner, half
        self._model = learner.model
        self._device = learner.device
        self._batch = batch + batch % 2
        self._parameters = list(self._model.trainable().values())
        cuda = self._device.type == "cuda"
        self._rate = torch.zeros((), device=self._device)
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=self._rate if cuda else 0.0,
            weight_decay=0.0,
            fused=True,
            capturable=cuda,
        )
        self._images = torch.empty(0)
        self._classes = 0
        self._mix = torch.empty(0)
        self._steps: dict[tuple[str, bool], Callable[[], object]] = {}
        size = self._batch
        self._rows = torch.zeros(size, dtype=torch.long, device=self._device)
        self._labels = torch.zeros(size, dtype=torch.long, device=self._device)
        self._real = torch.ones(size, dtype=torch.bool, device=self._device)

    @property
    def start(self) -> Start:
        """See ``Learner``."""
        return self._learner.start

    @property
    def head(self) -> nn.Module:
        """See ``Learner``."""
        return self._learner.head

    @property
    def by_images(self) -> bool:
        """See ``Learner``."""
        return self._model.net.statistics is not None

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self._device

    def prepare(self, local: Iterable[bool], recipe: Recipe) -> None:
        """Capture the steps that clients with and without statistics of their own need."""
        objective = objective_of(recipe.objective, self.head, self._classes)
        for one in local:
            self._step_of(objective, recipe.objective, local=one)

    @torch.no_grad()
    def hold(self, domain: Domain) -> None:
        """See ``Learner``."""
        parts = [self._learner.preprocess(p) for p in domain.images.split(EVALUATED)]
        images = torch.cat(parts).to(self._device)
        if images.shape == self._images.shape and domain.classes == self._classes:
            # Where a captured step reads them.
            self._images.copy_(images)
            return
        if self._half:
            images = images.contiguous(memory_format=torch.channels_last)
        self._images, self._classes = images, domain.classes
        # Where a captured step reads the mix that is expected of a client without labels.
        even = (1, domain.classes)
        self._mix = torch.full(even, 1 / domain.classes, device=self._device)
        self._steps.clear()

    def train(
        self, shares: Sequence[Share], recipe: Recipe, vectors: Sequence[Tensor], seeds: list[int]
    ) -> list[Tensor]:
        """See ``Learner``."""
        found = []
        for share, vector, seed in zip(shares, vectors, seeds, strict=True):
            free = recipe.objective == "label-free"
            client = share.client(seed, label_free=free)
            objective = objective_of(recipe.objective, self.head, self._classes)
            if share.mix is not None:
                self._mix.copy_(share.mix.unsqueeze(0))
            step = self._step_of(objective, recipe.objective, local=share.local)
            self._restart(vector)
            # The rate is constant in a round.
            self._rate.fill_(recipe.learning_rate)
            for group in self._optimizer.param_groups:
                if self._device.type != "cuda":
                    group["lr"] = recipe.learning_rate
            plan = schedule([client], objective, recipe, uniform=True)
            whole = share.local and self._device.type == "cuda"
            tables = _filled(plan.rows, plan.labels, plan.own >= 0, self._batch, whole=whole)
            rows, labels, real = (table.to(self._device) for table in tables)
            for place in range(len(rows)):
                self._show(rows[place], labels[place], real[place])
                step()
            found.append(self._model.sent_vector().clone())
        return found

    @torch.no_grad()
    def features(self, rows: Tensor, vector: Tensor, by: Tensor | None) -> Tensor:
        """See ``Learner``."""
        net = self._model.net
        self._model.load_vector(vector.to(self._device))
        rows = rows.to(self._device)
        with self._products() if self._device.type == "cpu" else nullcontext():
            if by is None or net.statistics is None:
                parts = [net.features(self._images[p]) for p in rows.split(EVALUATED)]
                return torch.cat(parts).float()
            giving = self._images[by[spread_choice(len(by))].to(self._device)]
            wanted = self._images[rows]
            return features_by(net.features, net.statistics, (giving, wanted), EVALUATED).float()

    def _products(self) -> AbstractContextManager[object]:
        """In bfloat16, if they are to be."""
        if not self._half:
            return nullcontext()
        net = self._model.net
        if isinstance(net, RecastModel):
            return bfloat16(net)
        # What trains changes from step to step: its cast is not to be kept.
        return torch.autocast(self._device.type, torch.bfloat16, cache_enabled=False)

    def _show(self, rows: Tensor, labels: Tensor, real: Tensor) -> None:
        """Put a batch where the step reads it; without padding, if that place may be another."""
        if self._device.type == "cuda":
            self._rows.copy_(rows)
            self._labels.copy_(labels)
            self._real.copy_(real)
        else:
            self._rows, self._labels, self._real = rows[real], labels[real], real[real]

    def _restart(self, vector: Tensor) -> None:
        with torch.no_grad():
            self._model.load_vector(vector.to(self._device))
            for state in self._optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def _step(self, objective: Objective, *, local: bool) -> None:
        self._optimizer.zero_grad(set_to_none=False)
        net = self._model.net
        with ExitStack() as within:
            if local:
                assert net.statistics is not None
                within.enter_context(net.statistics.of(self._real.float(), whole=True))
            within.enter_context(self._products())
            features = self._model.features(self._images[self._rows]).float()
        labels, real = self._labels.unsqueeze(0), self._real.unsqueeze(0)
        batch = Batch(labels, labels, real, self._classes, mix=self._mix)
        objective.losses(features.unsqueeze(0), batch).sum().backward()
        self._optimizer.step()

    def _step_of(self, objective: Objective, name: str, *, local: bool) -> Callable[[], object]:
        key = name, local
        if key not in self._steps:
            self._steps[key] = partial(self._step, objective, local=local)
            if self._device.type == "cuda":
                self._steps[key] = self._captured(self._steps[key])
        return self._steps[key]

    def _captured(self, step: Callable[[], object]) -> Callable[[], object]:
        self._rows.zero_()
        self._labels.zero_()
        self._real.fill_(value=True)
        for parameter in self._parameters:
            # Of an earlier graph, which writes there, if there was one.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        # Its own: graphs that were captured on one stream share memory for products, and learners
        # side by side would write there at once.
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                step()
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            step()
        return graph.replay


def _filled(
    rows: Tensor, labels: Tensor, real: Tensor, size: int, *, whole: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One client's batches ``[S, 1, 2, H]`` as ``[S, size]``: padded, or ``whole`` by repetition.

    Repeated images let BatchNorms take all rows; batches are even, so that they are few.
    """
    real = real.flatten(1)
    # Real images first, in their order.
    order = (~real).long().sort(dim=1, stable=True).indices
    places = torch.arange(size)
    counts = real.sum(1, keepdim=True).clamp_min(1)
    chosen = order.gather(1, places % counts)
    kept = torch.ones(len(real), size, dtype=torch.bool) if whole else places < counts
    return rows.flatten(1).gather(1, chosen), labels.flatten(1).gather(1, chosen), kept
