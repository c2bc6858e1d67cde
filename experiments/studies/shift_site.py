"""The server's side of the study of shifts: deployed classifier, source networks, banks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from client.data import load_dataset, parse_task
from client.data.arrays import Dataset, Images
from experiments.report.results import kind_of, parameters_of
from experiments.studies.shift_captured import BankModel, BankTrainee, CapturedLearner
from experiments.studies.shift_contenders import own_weights
from experiments.studies.shift_fleet import Domain
from experiments.studies.shift_lanes import Lanes
from experiments.studies.shift_learners import FoldedLearner
from recast_core.backbones import Backbone, load_backbone
from recast_core.bank import TemplateBank
from recast_core.copies import copied
from recast_core.errors import RecastError
from recast_core.files import write_atomically
from recast_core.folded import split_model
from recast_core.learner import method_learner
from recast_core.mimicry import fingerprint, mimic
from recast_core.model import RecastModel, attach, replace_module
from recast_core.recipe import Recipe
from recast_core.shifts.compositions import (
    Composition,
    allowed,
    composed,
    compositions,
    described,
)
from recast_core.shifts.table import FAMILIES, Shift
from recast_core.sources.fine_tune import FineTuner
from recast_core.sources.forms import Everything
from recast_core.sources.shift_bank import (
    divide,
    member_tensors,
    principal_directions,
    shift_bank,
)
from recast_core.sources.source_networks import SourceFolder, SourceNetwork, Wanted, Watcher
from recast_core.sources.source_networks import fine_tune_sources as make_sources
from recast_core.statistics import own_statistics

_SHIFT_SEED = 20_011
_BATCH = 128


@dataclass(frozen=True)
class SitePlan:
    """How the server makes what it deploys.

    Attributes:
        epochs: of the deployed classifier, on half A of the training images; 0 deploys the network
            as it is, with the classifier that it has.
        rate: likewise, the highest.
        sources: source networks, over all families.
        source_epochs: of each.
        source_rate: of each, the highest.
        sections: of a bank.
        directions: of each section.
        rank: of the packed directions; 0 leaves them as they are.
        bits: likewise.
        images: training images, and test images, that are used at most.
        seed: of halves, deployment and sources.
        half: products are bfloat16; ``None`` is so on a GPU alone.
        lanes: clients that train side by side where they train one after another.
    """

    epochs: int = 25
    rate: float = 6e-4
    sources: int = 32
    source_epochs: int = 6
    source_rate: float = 3e-4
    sections: int = 4
    directions: int = 12
    rank: int = 32
    bits: int = 4
    images: int = 1_000_000
    seed: int = 0
    half: bool | None = None
    lanes: int = 1


class Site:
    """A deployed classifier of half A's images, and what the server knows besides.

    Attributes:
        model: the classifier, on the CPU.
        head: dotted name of its last layer.
        clean: test accuracy without a shift.
        seen: likewise on the clients' training images, some of which the network may have seen.
    """

    def __init__(
        self, backbone: str, data: str, plan: SitePlan, device: torch.device, folder: Path
    ) -> None:
        """Fine-tune the classifier, take it from ``folder``, or deploy the network as it is.

        Raises:
            RecastError: it is to be deployed as it is, and its classes are not the data's.
        """
        self.plan, self.device, self.data = plan, device, data
        self.half = device.type == "cuda" if plan.half is None else plan.half
        self._loaded: Backbone = load_backbone(backbone)
        dataset = load_dataset(parse_task(data), self._loaded.preprocess.size)
        self.classes = len(dataset.classes)
        order = np.random.default_rng(plan.seed).permutation(len(dataset.y_train))[: plan.images]
        half = len(order) // 2
        self._ours, self._theirs = order[:half], order[half:]
        self._dataset: Dataset = replace(
            dataset, x_test=dataset.x_test[: plan.images], y_test=dataset.y_test[: plan.images]
        )
        self.head = self._loaded.head
        self.model = self._deploy(folder / "deployed.safetensors")
        self._folder = folder

    @property
    def kind(self) -> str:
        """See ``experiments.report.results.KINDS``."""
        return kind_of(self.model)

    @property
    def parameters(self) -> int:
        """Of the network without its classifier."""
        return parameters_of(self.model, self.head)

    def domain(self, shift: Shift) -> Domain:
        """The clients' images, half B and the test images, under a shift."""
        train, test = (
            composed(self._planes(images), (shift,), _SHIFT_SEED + place)
            for place, images in enumerate(
                (self._dataset.x_train[self._theirs], self._dataset.x_test)
            )
        )
        images = torch.cat([train, test]).permute(0, 2, 3, 1).contiguous()
        return Domain(
            images, self._dataset.y_train[self._theirs], self._dataset.y_test, self.classes
        )

    def sources(self, watcher: Watcher) -> list[tuple[Composition, SourceNetwork]]:
        """Source networks over all families, made once."""
        plan = self.plan
        grey = self._dataset.x_train.ndim == 3
        wanted = compositions(plan.sources, allowed((), grey=grey), plan.seed)
        names = member_tensors(self.model, self.head)
        planes = self._planes(self._dataset.x_train[self._ours])
        settings = {
            "network": fingerprint(self.model),
            "data": self.data,
            "sources": [described(each) for each in wanted],
            "plan": [plan.source_epochs, plan.source_rate, plan.images, plan.seed],
        }

        def asked(place: int, shifts: Composition) -> Wanted:
            return Wanted(
                described(shifts),
                lambda: self._prepared(composed(planes, shifts, place)),
                plan.seed,
            )

        form = Everything(self.model, self.head, self.device)
        made = make_sources(
            FineTuner(self.model, form, self.device, half=self.half),
            [asked(place, each) for place, each in enumerate(wanted)],
            torch.from_numpy(self._dataset.y_train[self._ours]),
            Recipe(plan.source_epochs, _BATCH, plan.source_rate),
            names,
            watcher,
            SourceFolder(self._folder / "sources", settings),
        )
        return list(zip(wanted, made, strict=True))

    def bank(
        self,
        sources: Sequence[tuple[Composition, SourceNetwork]],
        family: str,
        rank: int | None,
    ) -> tuple[TemplateBank, int]:
        """A bank of the sources that never saw ``family``, and how many these are."""
        good = [
            source.differences
            for shifts, source in sources
            if source.differences and family not in [FAMILIES[s.name] for s in shifts]
        ]
        sections = divide(member_tensors(self.model, self.head), self.plan.sections)
        count = min(self.plan.directions, len(good))
        directions = principal_directions(good, sections, count, self.device)
        bank = shift_bank(
            self.model, directions, rank=rank, bits=self.plan.bits, device=self.device
        )
        return bank, len(good)

    def own_bank(self) -> TemplateBank:
        """Of the network's own weights, 44 or 48 numbers for the networks of the paper."""
        config = own_weights(self.kind, self.parameters)
        return mimic(self.model, replace(config, sets=1))

    def folded(self, bank: TemplateBank) -> FoldedLearner:
        """What trains a bank's coefficients, all clients as one batch."""
        net, shown = self._attached(bank).to(self.device), self._loaded.preprocess
        split = split_model(net, shown.size, shown.channels)
        return FoldedLearner(split, shown, half=self.half)

    def captured_bank(self, bank: TemplateBank, batch: int) -> Lanes:
        """The same, one client after another in each lane."""
        first = self._attached(bank).to(self.device)
        # Packed directions are reconstructed once.
        nets = [first, *(copied(first) for _ in range(1, self.plan.lanes))]
        shown, device = self._loaded.preprocess, self.device
        trainees = [BankTrainee(BankModel(net), shown, bank, device) for net in nets]
        return Lanes([CapturedLearner(each, batch, half=self.half) for each in trainees])

    def _attached(self, bank: TemplateBank) -> RecastModel:
        model = copied(self.model)
        if self.half:
            model = model.to(memory_format=torch.channels_last)
        net = attach(model, bank, self.head)
        net.statistics = own_statistics(net.backbone)
        return net

    def captured(self, method: str, batch: int) -> Lanes:
        """What trains another method."""
        return Lanes([self._captured(method, batch) for _ in range(self.plan.lanes)])

    def _captured(self, method: str, batch: int) -> CapturedLearner:
        model = copied(self.model)
        if self.half:
            model = model.to(memory_format=torch.channels_last)
        shown, device = self._loaded.preprocess, self.device
        learner = method_learner(method, model, shown, device, statistics=True)
        return CapturedLearner(learner, batch, half=self.half)

    @property
    def lora_target(self) -> str:
        """What LoRA adapts."""
        return "attn+mlp" if self.kind == "layer-norm" else "conv"

    def _deploy(self, path: Path) -> nn.Module:
        model = copied(self._loaded.model)
        old = [m for m in model.get_submodule(self.head).modules() if isinstance(m, nn.Linear)][-1]
        if not self.plan.epochs:
            if old.out_features != self.classes:
                raise RecastError(
                    f"the network tells {old.out_features} classes apart and {self.data} has "
                    f"{self.classes}: it cannot be deployed as it is"
                )
            self._examine(FineTuner(model, Everything(model, "", self.device), self.device))
            return model.eval().requires_grad_(requires_grad=False)
        fresh = nn.Linear(old.in_features, self.classes)
        nn.init.zeros_(fresh.weight)
        nn.init.zeros_(fresh.bias)
        replace_module(model, self.head, fresh)
        model.eval().requires_grad_(requires_grad=False)
        images = self._prepared(self._planes(self._dataset.x_train[self._ours]))
        # No tensor's name starts with a dot: the new classifier trains too.
        tuner = FineTuner(model, Everything(model, "", self.device), self.device)
        if path.exists():
            model.load_state_dict(safetensors.torch.load_file(path))
            tuner = FineTuner(model, Everything(model, "", self.device), self.device)
        else:
            labels = torch.from_numpy(self._dataset.y_train[self._ours])
            tuner.run(images, labels, Recipe(self.plan.epochs, _BATCH, self.plan.rate))
            if tuner.buffers:
                tuner.statistics(images)
            self._keep(model, tuner, path)
        self._examine(tuner)
        return model

    def _examine(self, tuner: FineTuner) -> None:
        """Accuracies without a shift."""
        data, theirs = self._dataset, self._theirs
        self.clean, self.seen = (
            tuner.accuracy(self._prepared(self._planes(images)), torch.from_numpy(labels))
            for images, labels in (
                (data.x_test, data.y_test),
                (data.x_train[theirs], data.y_train[theirs]),
            )
        )

    def _keep(self, model: nn.Module, tuner: FineTuner, path: Path) -> None:
        made = {**tuner.form.tensors(), **tuner.buffers}
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in made.items()}
        model.load_state_dict(state)
        write_atomically(path, safetensors.torch.save(state))

    def _planes(self, images: Images) -> Tensor:
        """Stored images as uint8 ``[N, C, H, W]`` on the device."""
        planes = torch.from_numpy(images).to(self.device)
        return planes.unsqueeze(1) if planes.dim() == 3 else planes.permute(0, 3, 1, 2).contiguous()

    def _prepared(self, planes: Tensor) -> Tensor:
        return self._loaded.preprocess(planes.permute(0, 2, 3, 1))
