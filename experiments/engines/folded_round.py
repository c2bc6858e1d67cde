"""Answer one broadcast for many simulated clients, as ``client.answer`` does for one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from client import answer
from client.model import pick_device, preprocess_of
from client.node import Node
from experiments.engines.folded_data import NodeRows, TaskImages, load_task
from protos import recast_v1_pb2 as pb
from recast_core.backbones import Preprocess, load_backbone
from recast_core.bank import TemplateBank
from recast_core.codec import CodecError
from recast_core.errors import RecastError
from recast_core.folded import (
    Chunking,
    FoldedClient,
    Judged,
    SplitModel,
    Trained,
    count_correct,
    features_at,
    split_model,
    train,
)
from recast_core.messages import (
    Hyperparameters,
    RefusedError,
    from_broadcast,
    hyperparameters,
    to_update,
)
from recast_core.model import attach
from recast_core.settings import Settings

logger = logging.getLogger("recast.client")


@dataclass(frozen=True)
class Options:
    """How folded training runs; the defaults keep parity with the sequential engine to 1e-5.

    Attributes:
        chunk: clients trained at once; 0 chooses.
        half: bfloat16 products.
        compiled: ``torch.compile``.
        memory: bytes for what is kept of each image; ``None`` chooses.
    """

    chunk: int = 0
    half: bool = False
    compiled: bool = False
    memory: int | None = None


class Told(Protocol):
    """The part of a simulated node that answers depend on."""

    number: int
    banks: set[bytes]
    tasks: dict[int, pb.Task]


@dataclass
class Banks:
    """Every bank that any node was sent, held once."""

    _by_content: dict[bytes, TemplateBank] = field(default_factory=dict)
    _last: tuple[bytes, bytes] | None = None

    def add(self, content: bytes, sha256: bytes) -> TemplateBank:
        """Verify a bank as ``client.bank_cache`` does; the same bytes are verified once.

        Raises:
            RecastError: they are no bank, or another bank.
        """
        if self._last != (content, sha256):
            bank = TemplateBank.from_bytes(content, name="the bank that was sent")
            if bank.sha256 != sha256:
                raise RecastError(
                    f"the bank that was sent is {bank.prefix:08x}, {sha256[:4].hex()} was "
                    "announced: check the server's version"
                )
            self._by_content[sha256] = bank
            self._last = content, sha256
        return self._by_content[sha256]

    def of(self, node: Told, prefix: int) -> TemplateBank | None:
        """The node's bank whose identity starts with ``prefix``."""
        for sha256 in sorted(node.banks):
            if int.from_bytes(sha256[:4], "big") == prefix:
                return self._by_content[sha256]
        return None


@dataclass(frozen=True, eq=False)
class _Able:
    """Nodes that can take part in a broadcast, by their place among those asked."""

    bank: TemplateBank
    task: TaskImages
    places: list[int]
    shares: list[NodeRows]


class FoldedRound:
    """Trains and evaluates; holds the model, the tasks and how long it took.

    Attributes:
        training: seconds in training.
        evaluating: seconds in evaluation.
        chunking: how the last training was divided.
    """

    def __init__(self, clients: int, settings: Settings, banks: Banks, options: Options) -> None:
        self._clients = clients
        self._settings = settings
        self._banks = banks
        self._options = options
        self._tasks: dict[str, TaskImages] = {}
        self._model: tuple[bytes, SplitModel, Preprocess] | None = None
        self._nodes = [
            Node(number, Path(), None, (number, clients), settings) for number in range(clients)
        ]
        self.training = 0.0
        self.evaluating = 0.0
        self.chunking = Chunking()

    def hello(self, request: pb.HelloRequest, node: Told) -> pb.Hello:
        """Which bank and which data a node has; see ``client.answer.hello``."""
        reply = pb.Hello(holds_bank=request.bank.sha256 in node.banks)
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

    def train(
        self, broadcast: pb.Broadcast, nodes: Sequence[Told], finished: Callable[[int], None]
    ) -> list[pb.ToServer]:
        """The update, or the refusal, of each node; see ``client.answer.train``."""
        replies, able = self._sort_out(broadcast, nodes)
        finished(len(nodes) - len(able.places) if able else len(nodes))
        if able is None:
            return replies
        try:
            model, preprocess = self._attached(able.bank)
            hyper = hyperparameters(broadcast)
            start = from_broadcast(able.bank, broadcast)
            found = self._fit(model, preprocess, able, hyper, start, broadcast, nodes, finished)
        except (RefusedError, RecastError) as error:
            return _fill(replies, able, _declined(error, broadcast))
        offsets = found.coefficients.numpy() - start
        for index, place in enumerate(able.places):
            replies[place] = _update(able, index, found, offsets[index], hyper, broadcast)
        return replies

    def evaluate(
        self, broadcast: pb.Broadcast, nodes: Sequence[Told], finished: Callable[[int], None]
    ) -> list[pb.ToServer]:
        """The evaluation, or the refusal, of each node; see ``client.answer.evaluate``."""
        replies, able = self._sort_out(broadcast, nodes)
        finished(len(nodes) - len(able.places) if able else len(nodes))
        if able is None:
            return replies
        began = time.monotonic()
        try:
            model, preprocess = self._attached(able.bank)
            vector = torch.from_numpy(from_broadcast(able.bank, broadcast))
            head_only, correct = self._counts(model, preprocess, able, vector)
        except (RefusedError, RecastError) as error:
            return _fill(replies, able, _declined(error, broadcast))
        self.evaluating += time.monotonic() - began
        for index, place in enumerate(able.places):
            replies[place] = pb.ToServer(
                evaluation=pb.Evaluation(
                    bank=broadcast.bank,
                    task=broadcast.task,
                    round=broadcast.round,
                    examples=len(able.shares[index].judge),
                    correct=correct[index],
                    head_only_correct=head_only[index],
                )
            )
        finished(len(able.places))
        return replies

    def _fit(
        self,
        model: SplitModel,
        preprocess: Preprocess,
        able: _Able,
        hyper: Hyperparameters,
        start: np.ndarray,
        broadcast: pb.Broadcast,
        nodes: Sequence[Told],
        finished: Callable[[int], None],
    ) -> Trained:
        store = able.task.on(model, preprocess, self._options.memory)
        clients = []
        for place, share in zip(able.places, able.shares, strict=True):
            node = self._nodes[nodes[place].number]
            seed = answer.client_seed(hyper.seed, broadcast, node)
            clients.append(FoldedClient(share.learn, share.learn_labels, seed))
        self.chunking = Chunking(self._options.chunk or None)
        began = time.monotonic()
        found = train(
            model,
            store,
            clients,
            able.task.classes,
            epochs=hyper.epochs,
            batch=hyper.batch,
            learning_rate=hyper.learning_rate,
            start=torch.from_numpy(start),
            half=self._options.half,
            compiled=self._options.compiled,
            chunking=self.chunking,
            finished=finished,
        )
        self.training += time.monotonic() - began
        return found

    def _counts(
        self, model: SplitModel, preprocess: Preprocess, able: _Able, vector: Tensor
    ) -> tuple[list[int], list[int]]:
        """Right answers without and with the coefficients, a node each."""
        task = able.task
        store = task.on(model, preprocess, self._options.memory)
        rows = torch.cat([part for share in able.shares for part in (share.learn, share.judge)])
        rows = rows.unique()
        start = able.bank.initial_vector
        if task.head_only is None:
            width = features_at(model, store, rows[:1], start).shape[1]
            device = model.net.device
            task.head_only = torch.full((len(store), width), float("nan"), device=device)
        missing = rows[task.head_only[rows.to(task.head_only.device), 0].isnan().cpu()]
        if len(missing):
            task.head_only[missing.to(task.head_only.device)] = features_at(
                model, store, missing, start
            )
        judged = [Judged(s.learn, s.learn_labels, s.judge, s.judge_labels) for s in able.shares]
        head_only = count_correct(task.head_only, judged)
        if torch.equal(vector, start):
            return head_only, head_only
        table = torch.empty_like(task.head_only)
        table[rows.to(table.device)] = features_at(model, store, rows, vector)
        return head_only, count_correct(table, judged)

    def _sort_out(
        self, broadcast: pb.Broadcast, nodes: Sequence[Told]
    ) -> tuple[list[pb.ToServer], _Able | None]:
        """Refusals for the nodes that cannot take part, and the others."""
        replies = [pb.ToServer() for _ in nodes]
        places: list[int] = []
        shares: list[NodeRows] = []
        bank: TemplateBank | None = None
        images: TaskImages | None = None
        for place, node in enumerate(nodes):
            try:
                bank, images = self._prepare(broadcast, node)
            except (RefusedError, RecastError) as error:
                replies[place] = _declined(error, broadcast)
                continue
            places.append(place)
            shares.append(images.nodes[node.number])
        if bank is None or images is None or not places:
            return replies, None
        return replies, _Able(bank, images, places, shares)

    def _prepare(self, broadcast: pb.Broadcast, node: Told) -> tuple[TemplateBank, TaskImages]:
        bank = self._banks.of(node, broadcast.bank)
        if bank is None:
            raise _UnableError(
                pb.Refusal.REASON_BANK_MISSING,
                f"bank {broadcast.bank:08x} was not sent to client {node.number}",
            )
        task = node.tasks.get(broadcast.task)
        if task is None:
            raise _UnableError(
                pb.Refusal.REASON_UNKNOWN_TASK, f"task {broadcast.task} has not been announced"
            )
        images = self._images(task) if task.source else None
        if images is None or not len(images.nodes[node.number].learn):
            raise _UnableError(pb.Refusal.REASON_NO_DATA, f"no images of task {task.name}")
        if images.nodes[node.number].local_classes < 2:
            raise _UnableError(
                pb.Refusal.REASON_ONE_CLASS, f"the images of task {task.name} are of one class"
            )
        return bank, images

    def _images(self, task: pb.Task) -> TaskImages:
        if task.source not in self._tasks:
            size = preprocess_of(self._settings.backbone).size
            self._tasks[task.source] = load_task(task.source, size, self._clients, self._settings)
        return self._tasks[task.source]

    def _attached(self, bank: TemplateBank) -> tuple[SplitModel, Preprocess]:
        if self._model is None or self._model[0] != bank.sha256:
            loaded = load_backbone(self._settings.backbone)
            net = attach(loaded.model, bank, loaded.head).to(pick_device(self._settings.device))
            size = loaded.preprocess.size
            example = torch.linspace(-1, 1, 2 * 3 * size * size, device=net.device)
            model = split_model(net, example.view(2, 3, size, size))
            self._model = bank.sha256, model, loaded.preprocess
        return self._model[1], self._model[2]


class _UnableError(RefusedError):
    """A refusal with its code of the wire."""

    def __init__(self, code: pb.Refusal.Reason, detail: str) -> None:
        super().__init__(pb.Refusal.Reason.Name(code), detail)
        self.code = code


def _update(
    able: _Able,
    index: int,
    found: Trained,
    offsets: np.ndarray,
    hyper: Hyperparameters,
    broadcast: pb.Broadcast,
) -> pb.ToServer:
    if not bool(found.finite[index]):
        diverged = RecastError("training ended in NaN or infinity: lower the learning rate")
        return _declined(diverged, broadcast)
    examples = len(able.shares[index].learn)
    try:
        update = to_update(
            able.bank, broadcast.task, broadcast.round, examples, offsets, hyper.bits
        )
    except CodecError as error:
        return _declined(error, broadcast)
    return pb.ToServer(update=update)


def _fill(replies: list[pb.ToServer], able: _Able, body: pb.ToServer) -> list[pb.ToServer]:
    for place in able.places:
        replies[place] = body
    return replies


def _declined(error: Exception, broadcast: pb.Broadcast) -> pb.ToServer:
    code = pb.Refusal.REASON_FAILED
    if isinstance(error, _UnableError):
        code = error.code
    elif isinstance(error, CodecError):
        code = pb.Refusal.REASON_NOT_FINITE
    elif isinstance(error, RefusedError):
        code = pb.Refusal.REASON_MALFORMED
    return answer.refusal(code, str(error), broadcast)
