"""What the folded engine holds for a round: data, banks and the model, each thing once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from client import answer
from client.model import pick_device, preprocess_of
from experiments.engines.folded.data import NodeRows, TaskImages, load_task
from experiments.engines.folded.nodes import Banks, SimulatedNode
from protos import recast_v1_pb2 as pb
from recast_core.backbones import Preprocess, load_backbone
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.folded import SplitModel, split_model
from recast_core.messages import RefusedError
from recast_core.mimicry import mimic
from recast_core.model import attach
from recast_core.settings import Settings

logger = logging.getLogger("recast.client")


@dataclass(frozen=True, eq=False)
class Able:
    """Nodes that can take part in a broadcast, by their place among those asked."""

    bank: TemplateBank
    task: TaskImages
    places: list[int]
    shares: list[NodeRows]


class Held:
    """Data, banks and the model; says which nodes can take part in what."""

    def __init__(self, clients: int, settings: Settings, banks: Banks) -> None:
        self._clients = clients
        self._settings = settings
        self._banks = banks
        self._tasks: dict[str, TaskImages] = {}
        self._model: tuple[bytes, SplitModel, Preprocess] | None = None
        self._seeded: bytes | None = None

    def hello(self, request: pb.HelloRequest, node: SimulatedNode) -> pb.Hello:
        """Which bank and which data a node has; see ``client.answer.hello``.

        Raises:
            RecastError: a method other than recast.
        """
        if request.method:
            raise RecastError(f"method {request.method} does not fold: use --engine sequential")
        if self._settings.source == "seeded":
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
        bank: TemplateBank | None = None
        images: TaskImages | None = None
        for place, node in enumerate(nodes):
            try:
                bank, images = self._prepare(broadcast, node, classes)
            except (RefusedError, RecastError) as error:
                replies[place] = answer.declined(error, broadcast)
                continue
            places.append(place)
            shares.append(images.nodes[node.number])
        if bank is None or images is None or not places:
            return replies, None
        return replies, Able(bank, images, places, shares)

    def _prepare(
        self, broadcast: pb.Broadcast, node: SimulatedNode, classes: int
    ) -> tuple[TemplateBank, TaskImages]:
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

    def model(self, bank: TemplateBank) -> tuple[SplitModel, Preprocess]:
        """The divided model with ``bank``, and how it takes images; the last one is kept."""
        if self._model is None or self._model[0] != bank.sha256:
            loaded = load_backbone(self._settings.backbone)
            net = attach(loaded.model, bank, loaded.head).to(pick_device(self._settings.device))
            model = split_model(net, loaded.preprocess.size)
            self._model = bank.sha256, model, loaded.preprocess
        return self._model[1], self._model[2]
