"""Answer one broadcast for many simulated clients, as ``client.answer`` does for one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from client import answer
from client.node import Node
from client.residuals import Residuals
from experiments.engines.folded.held import Able, Held
from experiments.engines.folded.judge import Judge
from experiments.engines.folded.nodes import Banks, SimulatedNode
from protos import recast_v1_pb2 as pb
from recast_core import feedback
from recast_core.backbones import Preprocess
from recast_core.codec import CodecError, Vector
from recast_core.errors import RecastError
from recast_core.folded import (
    Chunking,
    FoldedClient,
    SplitModel,
    Trained,
    train,
)
from recast_core.messages import (
    Hyperparameters,
    RefusedError,
    from_broadcast,
    hyperparameters,
    update_of,
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
            if bool(found.finite[index]):
                replies[place] = self._update(
                    able, index, offsets[index], hyper, broadcast, nodes[place]
                )
            else:
                diverged = "training ended in NaN or infinity: lower the learning rate"
                replies[place] = answer.declined(RecastError(diverged), broadcast)
        return replies

    def evaluate(
        self,
        broadcast: pb.Broadcast,
        nodes: Sequence[SimulatedNode],
        finished: Callable[[int], None],
    ) -> list[pb.ToServer]:
        """The evaluation, or the refusal, of each node; see ``client.answer.evaluate``."""

        def judged(judge: Judge, able: Able) -> list[pb.ToServer]:
            return [
                answer.evaluation(broadcast, len(share.judge), *counts)
                for share, counts in zip(able.shares, judge.counts(broadcast), strict=True)
            ]

        classes = 1 if broadcast.head else 2
        return self._with_features(broadcast, nodes, finished, classes, judged)

    def head(
        self,
        broadcast: pb.Broadcast,
        nodes: Sequence[SimulatedNode],
        finished: Callable[[int], None],
    ) -> list[pb.ToServer]:
        """What each node tells of its features, or its refusal; see ``client.answer.head``."""
        return self._with_features(
            broadcast, nodes, finished, 1, lambda judge, able: judge.heads(broadcast)
        )

    def _with_features(
        self,
        broadcast: pb.Broadcast,
        nodes: Sequence[SimulatedNode],
        finished: Callable[[int], None],
        classes: int,
        work: Callable[[Judge, Able], list[pb.ToServer]],
    ) -> list[pb.ToServer]:
        replies, able = self.held.sort_out(broadcast, nodes, classes)
        finished(len(nodes) - len(able.places) if able else len(nodes))
        if able is None:
            return replies
        began = time.monotonic()
        try:
            judge = Judge(*self.held.model(able.bank), able, self._options.memory, self._workers)
            found = work(judge, able)
        except (RefusedError, RecastError) as error:
            return _fill(replies, able, answer.declined(error, broadcast))
        self.evaluating += time.monotonic() - began
        for place, reply in zip(able.places, found, strict=True):
            replies[place] = reply
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

    def _update(
        self,
        able: Able,
        index: int,
        offsets: Vector,
        hyper: Hyperparameters,
        broadcast: pb.Broadcast,
        node: SimulatedNode,
    ) -> pb.ToServer:
        """A node's update; see ``client.answer.train``."""
        kept = None
        if hyper.error_feedback:
            kept = Residuals.of(node.residuals, broadcast, node.tasks[broadcast.task])
        seed = answer.client_seed(hyper.seed, broadcast, self._nodes[node.number])
        try:
            encoded = feedback.round_update(offsets, kept, broadcast, hyper, seed)
        except CodecError as error:
            return answer.declined(error, broadcast)
        examples = len(able.shares[index].learn)
        update = update_of(able.bank, broadcast.task, broadcast.round, examples, encoded)
        return pb.ToServer(update=update)


def _fill(replies: list[pb.ToServer], able: Able, body: pb.ToServer) -> list[pb.ToServer]:
    for place in able.places:
        replies[place] = body
    return replies
