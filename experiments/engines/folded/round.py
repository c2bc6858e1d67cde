"""Answer one broadcast for many simulated clients, as ``client.answer`` does for one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from client import answer
from client.node import Node
from client.residuals import Residuals
from experiments.engines.folded.held import Able, Held
from experiments.engines.folded.judge import Judge
from experiments.engines.folded.models import Options
from experiments.engines.folded.nodes import Banks, SimulatedNode
from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.folded import FoldedClient
from recast_core.settings import Settings
from recast_core.wire import rounding as feedback
from recast_core.wire.codec import CodecError, Vector
from recast_core.wire.messages import (
    Hyperparameters,
    RefusedError,
    from_broadcast,
    hyperparameters,
    update_of,
)

logger = logging.getLogger("recast.client")


class FoldedRound:
    """Trains and evaluates, and keeps the time.

    Attributes:
        held: data, banks and the model.
        training: seconds in training.
        evaluating: seconds in evaluation.
    """

    def __init__(self, clients: int, settings: Settings, banks: Banks, options: Options) -> None:
        self.held = Held(clients, settings, banks, options)
        self._nodes = [
            Node(number, Path(), None, (number, clients), settings) for number in range(clients)
        ]
        self.training = 0.0
        self.evaluating = 0.0

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
            model = self.held.model(able.start)
            hyper = hyperparameters(broadcast)
            start = from_broadcast(able.start, broadcast)
            clients = self._clients(able, hyper, broadcast, nodes)
            began = time.monotonic()
            found = model.train(able.task, clients, hyper, start, finished)
            self.training += time.monotonic() - began
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
            judge = Judge(self.held.model(able.start), able)
            found = work(judge, able)
        except (RefusedError, RecastError) as error:
            return _fill(replies, able, answer.declined(error, broadcast))
        self.evaluating += time.monotonic() - began
        for place, reply in zip(able.places, found, strict=True):
            replies[place] = reply
        finished(len(able.places))
        return replies

    def _clients(
        self,
        able: Able,
        hyper: Hyperparameters,
        broadcast: pb.Broadcast,
        nodes: Sequence[SimulatedNode],
    ) -> list[FoldedClient]:
        seeds = (
            answer.client_seed(hyper.seed, broadcast, self._nodes[nodes[place].number])
            for place in able.places
        )
        return [
            FoldedClient(share.learn, share.learn_labels, seed)
            for share, seed in zip(able.shares, seeds, strict=True)
        ]

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
            kept = Residuals.of(node.residuals, broadcast, node.tasks[broadcast.task], node.number)
        seed = answer.client_seed(hyper.seed, broadcast, self._nodes[node.number])
        try:
            encoded = feedback.round_update(offsets, kept, broadcast, hyper, seed)
        except CodecError as error:
            return answer.declined(error, broadcast)
        examples = len(able.shares[index].learn)
        update = update_of(able.start, broadcast.task, broadcast.round, examples, encoded)
        return pb.ToServer(update=update)


def _fill(replies: list[pb.ToServer], able: Able, body: pb.ToServer) -> list[pb.ToServer]:
    for place in able.places:
        replies[place] = body
    return replies
