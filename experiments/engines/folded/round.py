"""Answer one broadcast for many simulated clients, as ``client.answer`` does for one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client import answer
from client.node import Node
from experiments.engines.folded.held import Able, Held
from experiments.engines.folded.nodes import Banks, SimulatedNode
from protos import recast_v1_pb2 as pb
from recast_core.backbones import Preprocess
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
    train,
)
from recast_core.messages import (
    Hyperparameters,
    RefusedError,
    from_broadcast,
    hyperparameters,
    to_update,
)
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


class FoldedRound:
    """Trains and evaluates, and keeps the time.

    Attributes:
        held: data, banks and the model.
        training: seconds in training.
        evaluating: seconds in evaluation.
        chunking: how the last training was divided.
    """

    def __init__(self, clients: int, settings: Settings, banks: Banks, options: Options) -> None:
        self.held = Held(clients, settings, banks)
        self._options = options
        # One thread for each client, as on the other engines: its last bits depend on that.
        self._workers = torch.get_num_threads()
        self._nodes = [
            Node(number, Path(), None, (number, clients), settings) for number in range(clients)
        ]
        self.training = 0.0
        self.evaluating = 0.0
        self.chunking = Chunking()

    def train(
        self,
        broadcast: pb.Broadcast,
        nodes: Sequence[SimulatedNode],
        finished: Callable[[int], None],
    ) -> list[pb.ToServer]:
        """The update, or the refusal, of each node; see ``client.answer.train``."""
        replies, able = self.held.sort_out(broadcast, nodes)
        finished(len(nodes) - len(able.places) if able else len(nodes))
        if able is None:
            return replies
        try:
            model, preprocess = self.held.model(able.bank)
            hyper = hyperparameters(broadcast)
            start = from_broadcast(able.bank, broadcast)
            found = self._fit(model, preprocess, able, hyper, start, broadcast, nodes, finished)
        except (RefusedError, RecastError) as error:
            return _fill(replies, able, answer.declined(error, broadcast))
        offsets = found.coefficients.numpy() - start
        for index, place in enumerate(able.places):
            replies[place] = _update(able, index, found, offsets[index], hyper, broadcast)
        return replies

    def evaluate(
        self,
        broadcast: pb.Broadcast,
        nodes: Sequence[SimulatedNode],
        finished: Callable[[int], None],
    ) -> list[pb.ToServer]:
        """The evaluation, or the refusal, of each node; see ``client.answer.evaluate``."""
        replies, able = self.held.sort_out(broadcast, nodes)
        finished(len(nodes) - len(able.places) if able else len(nodes))
        if able is None:
            return replies
        began = time.monotonic()
        try:
            model, preprocess = self.held.model(able.bank)
            vector = torch.from_numpy(from_broadcast(able.bank, broadcast))
            head_only, correct = self._counts(model, preprocess, able, vector)
        except (RefusedError, RecastError) as error:
            return _fill(replies, able, answer.declined(error, broadcast))
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
        able: Able,
        hyper: Hyperparameters,
        start: np.ndarray,
        broadcast: pb.Broadcast,
        nodes: Sequence[SimulatedNode],
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
            workers=self._workers,
            finished=finished,
        )
        self.training += time.monotonic() - began
        return found

    def _counts(
        self, model: SplitModel, preprocess: Preprocess, able: Able, vector: Tensor
    ) -> tuple[list[int], list[int]]:
        """Right answers without and with the coefficients, a node each."""
        task = able.task
        store = task.on(model, preprocess, self._options.memory)
        rows = torch.cat([part for share in able.shares for part in (share.learn, share.judge)])
        rows = rows.unique()
        start = able.bank.initial_vector
        if task.head_only is None:
            width = features_at(model, store, rows[:1], start, self._workers).shape[1]
            device = model.net.device
            task.head_only = torch.full((len(store), width), float("nan"), device=device)
        missing = rows[task.head_only[rows.to(task.head_only.device), 0].isnan().cpu()]
        if len(missing):
            task.head_only[missing.to(task.head_only.device)] = features_at(
                model, store, missing, start, self._workers
            )
        judged = [Judged(s.learn, s.learn_labels, s.judge, s.judge_labels) for s in able.shares]
        head_only = count_correct(task.head_only, judged)
        if torch.equal(vector, start):
            return head_only, head_only
        table = torch.empty_like(task.head_only)
        table[rows.to(table.device)] = features_at(model, store, rows, vector, self._workers)
        return head_only, count_correct(table, judged)


def _update(
    able: Able,
    index: int,
    found: Trained,
    offsets: np.ndarray,
    hyper: Hyperparameters,
    broadcast: pb.Broadcast,
) -> pb.ToServer:
    if not bool(found.finite[index]):
        diverged = RecastError("training ended in NaN or infinity: lower the learning rate")
        return answer.declined(diverged, broadcast)
    examples = len(able.shares[index].learn)
    try:
        update = to_update(
            able.bank, broadcast.task, broadcast.round, examples, offsets, hyper.bits
        )
    except CodecError as error:
        return answer.declined(error, broadcast)
    return pb.ToServer(update=update)


def _fill(replies: list[pb.ToServer], able: Able, body: pb.ToServer) -> list[pb.ToServer]:
    for place in able.places:
        replies[place] = body
    return replies
