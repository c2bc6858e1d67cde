"""What the folded engine holds for a round: data, banks and the model, each thing once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from client import answer
from client.learners import pick_device, preprocess_of, with_method
from experiments.engines.folded.data import NodeRows, TaskImages, load_task
from experiments.engines.folded.models import FoldedBank, FoldedMethod, FoldedModel, Options
from experiments.engines.folded.nodes import Banks, SimulatedNode
from protos import recast_v1_pb2 as pb
from recast_core.backbones import load_backbone
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.folded import split_model
from recast_core.mimicry import mimic
from recast_core.model import attach
from recast_core.settings import Settings
from recast_core.start import MethodStart, Start
from recast_core.wire.messages import RefusedError

logger = logging.getLogger("recast.client")


@dataclass(frozen=True, eq=False)
class Able:
    """Nodes that can take part in a broadcast, by their place among those asked."""

    start: Start
    task: TaskImages
    places: list[int]
    shares: list[NodeRows]


class Held:
    """Data, banks and the model; says which nodes can take part in what."""

    def __init__(self, clients: int, settings: Settings, banks: Banks, options: Options) -> None:
        self._clients = clients
        self._settings = settings
        self._banks = banks
        self._options = options
        # One thread for each client, as on the other engines: its last bits depend on that.
        self._workers = torch.get_num_threads()
        self._tasks: dict[str, TaskImages] = {}
        self._model: FoldedModel | None = None
        self._seeded: bytes | None = None

    def hello(self, request: pb.HelloRequest, node: SimulatedNode) -> pb.Hello:
        """Which bank and which data a node has; see ``client.answer.hello``."""
        if request.method:
            node.banks |= self._derived(request.method, request.bank.sha256)
        elif self._settings.source == "seeded":
            node.banks.add(self._seeded_bank())
        reply = pb.Hello(holds_bank=request.bank.sha256 in node.banks, client=node.number + 1)
        for task in request.tasks:
            if not task.source:
                continue
            try:
                images = self._images(task)
            except RecastError as error:
                logger.error("no data for task %s: %s", task.name, error)
                continue
            share = images.nodes[node.number]
            if len(share.learn):
                reply.tasks.add(
                    task=task.id,
                    train_examples=len(share.learn),
                    test_examples=len(share.judge),
                    classes=images.classes,
                    local_classes=share.local_classes,
                )
        return reply

    def sort_out(
        self, broadcast: pb.Broadcast, nodes: Sequence[SimulatedNode], classes: int = 2
    ) -> tuple[list[pb.ToServer], Able | None]:
        """Refusals for the nodes that cannot take part, and the others.

        Args:
            broadcast: what is asked.
            nodes: who is asked.
            classes: that a node's training images must have.
        """
        replies = [pb.ToServer() for _ in nodes]
        places: list[int] = []
        shares: list[NodeRows] = []
        start: Start | None = None
        images: TaskImages | None = None
        for place, node in enumerate(nodes):
            try:
                start, images = self._prepare(broadcast, node, classes)
            except (RefusedError, RecastError) as error:
                replies[place] = answer.declined(error, broadcast)
                continue
            places.append(place)
            shares.append(images.nodes[node.number])
        if start is None or images is None or not places:
            return replies, None
        return replies, Able(start, images, places, shares)

    def _prepare(
        self, broadcast: pb.Broadcast, node: SimulatedNode, classes: int
    ) -> tuple[Start, TaskImages]:
        bank = self._banks.of(node, broadcast.bank)
        if bank is None:
            raise answer.UnpreparedError(
                pb.Refusal.REASON_BANK_MISSING,
                f"bank {broadcast.bank:08x} was not sent to client {node.number}",
            )
        task = node.tasks.get(broadcast.task)
        if task is None:
            raise answer.UnpreparedError(
                pb.Refusal.REASON_UNKNOWN_TASK, f"task {broadcast.task} has not been announced"
            )
        images = self._images(task) if task.source else None
        if images is None or not len(images.nodes[node.number].learn):
            raise answer.UnpreparedError(
                pb.Refusal.REASON_NO_DATA, f"no images of task {task.name}"
            )
        if images.nodes[node.number].local_classes < classes:
            raise answer.UnpreparedError(
                pb.Refusal.REASON_ONE_CLASS, f"the images of task {task.name} are of one class"
            )
        return bank, images

    def _images(self, task: pb.Task) -> TaskImages:
        if task.source not in self._tasks:
            size = preprocess_of(self._settings.backbone).size
            self._tasks[task.source] = load_task(task.source, size, self._clients, self._settings)
        return self._tasks[task.source]

    def _seeded_bank(self) -> bytes:
        """The bank that every node makes for itself, made once."""
        if self._seeded is None:
            model = load_backbone(self._settings.backbone).model
            bank = mimic(model, self._settings.recast())
            self._banks.hold(bank)
            self._seeded = bank.sha256
        return self._seeded

    def _derived(self, method: str, sha256: bytes) -> set[bytes]:
        """The identity ``sha256`` where the method starts there on this backbone, else nothing."""
        found = with_method(self._settings.backbone, method, self._settings.device)
        if found.start.sha256 != sha256:
            return set()
        self._banks.hold(found.start)
        return {sha256}

    def model(self, start: Start) -> FoldedModel:
        """The model with ``start``; the last one is kept."""
        if self._model is None or self._model.start.sha256 != start.sha256:
            self._model = self._make(start)
        return self._model

    def _make(self, start: Start) -> FoldedModel:
        name, device = self._settings.backbone, self._settings.device
        if isinstance(start, MethodStart):
            learner = with_method(name, start.method, device)
            return FoldedMethod(learner, self._options, self._workers)
        assert isinstance(start, TemplateBank)
        loaded = load_backbone(name)
        net = attach(loaded.model, start, loaded.head).to(pick_device(device))
        split = split_model(net, loaded.preprocess.size)
        return FoldedBank(split, loaded.preprocess, self._options, self._workers)
