"""Answer one message of the server. Nothing here knows what carried it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from client.bank_cache import BankCache
from client.data import ClientData
from client.learners import learner, preprocess_of, with_method
from client.node import Node
from client.residuals import FileStore, Residuals
from protos import recast_v1_pb2 as pb
from recast_core.backbones import load_backbone
from recast_core.errors import RecastError
from recast_core.heads import head_kind
from recast_core.learner import Learner
from recast_core.mimicry import mimic
from recast_core.wire import rounding as feedback
from recast_core.wire.codec import CodecError, Vector
from recast_core.wire.heads import (
    TRAVELLING,
    count_correct,
    kind_of,
    pack_statistics,
    unpack_head_for,
)
from recast_core.wire.messages import RefusedError, from_broadcast, hyperparameters, update_of

logger = logging.getLogger("recast.client")
Tasks = Mapping[int, pb.Task]
_Images = tuple[Tensor, Tensor]


def hello(request: pb.HelloRequest, node: Node) -> pb.Hello:
    """Which bank and which data this client has."""
    size = preprocess_of(node.settings.backbone).size
    answer = pb.Hello(holds_bank=_holds(request, node), client=node.number + 1)
    for task in request.tasks:
        try:
            data = node.data(task.name, task.source, size)
        except RecastError as error:
            logger.error("no data for task %s: %s", task.name, error)
            continue
        if data is not None and len(data.y_train):
            answer.tasks.add(
                task=task.id,
                train_examples=len(data.y_train),
                test_examples=len(data.y_test),
                classes=data.num_classes,
                local_classes=len(np.unique(data.y_train)),
            )
    return answer


def store_bank(delivery: pb.BankDelivery, node: Node) -> pb.ToServer:
    """Keep the bank that was sent, if it is what it says."""
    try:
        BankCache(node.cache).store(delivery.content, delivery.bank.sha256)
    except RecastError as error:
        unwritten = isinstance(error.__cause__, OSError)
        code = pb.Refusal.REASON_FAILED if unwritten else pb.Refusal.REASON_BANK_MISMATCH
        return refusal(code, str(error))
    prefix = int.from_bytes(delivery.bank.sha256[:4], "big")
    return pb.ToServer(bank=pb.BankReceipt(bank=prefix))


def train(broadcast: pb.Broadcast, tasks: Tasks, node: Node) -> pb.ToServer:
    """Fit the coefficients of the broadcast's task on this client's images."""
    try:
        model, data = _prepare(broadcast, tasks, node)
        hyper = hyperparameters(broadcast)
        start = from_broadcast(model.start, broadcast)
        images, labels = _train_set(data)
        seed = client_seed(hyper.seed, broadcast, node)
        offsets = model.fit(start, images, labels, data.num_classes, hyper, seed) - start
        kept = None
        if hyper.error_feedback:
            kept = Residuals.of(
                FileStore(node.cache), broadcast, tasks[broadcast.task], node.number
            )
        encoded = feedback.round_update(offsets, kept, broadcast, hyper, seed)
        update = update_of(model.start, broadcast.task, broadcast.round, len(labels), encoded)
        return pb.ToServer(update=update)
    except (RefusedError, CodecError, RecastError) as error:
        return declined(error, broadcast)


def head(broadcast: pb.Broadcast, tasks: Tasks, node: Node) -> pb.ToServer:
    """Tell of this client's features what the server makes a head from."""
    try:
        model, data = _prepare(broadcast, tasks, node, classes=1)
        kind = travelling(broadcast)
        images, labels = _train_set(data)
        features = model.features(images, from_broadcast(model.start, broadcast))
        return head_answer(broadcast, kind, features, labels, data.num_classes)
    except (RefusedError, RecastError) as error:
        return declined(error, broadcast)


def evaluate(broadcast: pb.Broadcast, tasks: Tasks, node: Node) -> pb.ToServer:
    """Measure a head on this client's test images, with the coefficients and without.

    The head is the one that the broadcast brings, or one fitted on this client's own features.
    """
    try:
        model, data = _prepare(broadcast, tasks, node, classes=1 if broadcast.head else 2)
        vector = from_broadcast(model.start, broadcast)
        kind = evaluated_kind(broadcast)
        if kind in TRAVELLING:
            correct, head_only = _with_heads(model, broadcast, vector, kind, _test_set(data))
        else:
            head_only = _with_local(model, kind, None, data)
            correct = _with_local(model, kind, vector, data)
        return evaluation(broadcast, len(data.y_test), correct, head_only)
    except (RefusedError, RecastError) as error:
        return declined(error, broadcast)


def travelling(broadcast: pb.Broadcast) -> str:
    """The kind of head that a broadcast asks statistics for.

    Raises:
        RefusedError: ``malformed``, one that does not travel.
    """
    kind = kind_of(broadcast.head_kind)
    if kind not in TRAVELLING:
        raise RefusedError("malformed", f"a {kind} head does not travel")
    return kind


def evaluated_kind(broadcast: pb.Broadcast) -> str:
    """The kind of head that a broadcast asks to evaluate.

    Raises:
        RefusedError: ``malformed``, one that should have come with it, or should not have.
    """
    kind = kind_of(broadcast.head_kind)
    if (kind in TRAVELLING) != bool(broadcast.head):
        raise RefusedError("malformed", f"an evaluation of a {kind} head, which is not there")
    return kind


def head_answer(
    broadcast: pb.Broadcast, kind: str, features: Tensor, labels: Tensor, classes: int
) -> pb.ToServer:
    """What a client with these features ``[N, d]`` and labels ``[N]`` tells the server."""
    statistics = head_kind(kind).statistics(features, labels.to(features.device), classes)
    return pb.ToServer(
        head=pb.HeadStatistics(
            bank=broadcast.bank,
            task=broadcast.task,
            round=broadcast.round,
            content=pack_statistics(kind, statistics, classes),
        )
    )


def evaluation(broadcast: pb.Broadcast, examples: int, correct: int, head_only: int) -> pb.ToServer:
    """What a client says of its test images."""
    return pb.ToServer(
        evaluation=pb.Evaluation(
            bank=broadcast.bank,
            task=broadcast.task,
            round=broadcast.round,
            examples=examples,
            correct=correct,
            head_only_correct=head_only,
        )
    )


def refusal(
    reason: pb.Refusal.Reason, detail: str, broadcast: pb.Broadcast | None = None
) -> pb.ToServer:
    """Why this client takes no part."""
    logger.warning("%s", detail)
    message = pb.Refusal(reason=reason, detail=detail[:200])
    if broadcast is not None:
        message.task, message.round = broadcast.task, broadcast.round
    return pb.ToServer(refusal=message)


def client_seed(seed: int, broadcast: pb.Broadcast, node: Node) -> int:
    """The seed of one client in one round of one task, whatever carries the message."""
    return feedback.client_seed(seed, broadcast.task, broadcast.round, node.number)


def _holds(request: pb.HelloRequest, node: Node) -> bool:
    cache, sha256 = BankCache(node.cache), request.bank.sha256
    if request.method:
        return _derives(request.method, sha256, node)
    if cache.holds(sha256):
        return True
    if node.settings.source != "seeded":
        return False
    # A seeded bank follows from the backbone and the settings, so it need not cross the network.
    bank = mimic(load_backbone(node.settings.backbone).model, node.settings.recast())
    if bank.sha256 != sha256:
        return False
    cache.store(bank.to_bytes(), sha256)
    return True


def _derives(method: str, sha256: bytes, node: Node) -> bool:
    """Whether this client's backbone gives the method the start that was announced."""
    try:
        found = with_method(node.settings.backbone, method, node.settings.device)
    except RecastError as error:
        logger.error("method %s: %s", method, error)
        return False
    if found.start.sha256 != sha256:
        logger.error("method %s starts elsewhere here: another backbone or version", method)
        return False
    BankCache(node.cache).store_method(method, sha256)
    return True


class UnpreparedError(RefusedError):
    """A refusal with its code of the wire."""

    def __init__(self, code: pb.Refusal.Reason, detail: str) -> None:
        super().__init__(pb.Refusal.Reason.Name(code), detail)
        self.code = code


def _prepare(
    broadcast: pb.Broadcast, tasks: Tasks, node: Node, classes: int = 2
) -> tuple[Learner, ClientData]:
    path = BankCache(node.cache).find(broadcast.bank)
    if path is None:
        raise UnpreparedError(
            pb.Refusal.REASON_BANK_MISSING, f"bank {broadcast.bank:08x} is not in {node.cache}"
        )
    task = tasks.get(broadcast.task)
    if task is None:
        raise UnpreparedError(
            pb.Refusal.REASON_UNKNOWN_TASK, f"task {broadcast.task} has not been announced"
        )
    try:
        model = learner(node.settings.backbone, path, node.settings.device)
    except RecastError as error:
        if BankCache(node.cache).holds(bytes.fromhex(path.stem)):
            raise
        raise UnpreparedError(pb.Refusal.REASON_BANK_MISSING, str(error)) from error
    data = node.data(task.name, task.source, preprocess_of(node.settings.backbone).size)
    if data is None or not len(data.y_train):
        raise UnpreparedError(pb.Refusal.REASON_NO_DATA, f"no images of task {task.name}")
    if len(np.unique(data.y_train)) < classes:
        raise UnpreparedError(
            pb.Refusal.REASON_ONE_CLASS, f"the images of task {task.name} are of one class"
        )
    return model, data


def _train_set(data: ClientData) -> _Images:
    return torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)


def _test_set(data: ClientData) -> _Images:
    return torch.from_numpy(data.x_test), torch.from_numpy(data.y_test)


def _with_local(model: Learner, kind: str, vector: Vector | None, data: ClientData) -> int:
    """Right answers of a head fitted here, with a vector or the start's."""
    (images, labels), (test_images, test_labels) = _train_set(data), _test_set(data)
    features = model.features(images, vector)
    found = head_kind(kind).fit(features, labels.to(features.device), data.num_classes)
    return count_correct(found, model.features(test_images, vector), test_labels)


def _with_heads(
    model: Learner, broadcast: pb.Broadcast, vector: Vector, kind: str, test_set: _Images
) -> tuple[int, int]:
    """Right answers of the head that was sent, and of the one for the start: 0 if there is none."""
    images, labels = test_set
    features = model.features(images, vector)
    correct = count_correct(unpack_head_for(features, broadcast.head, kind), features, labels)
    if not broadcast.coefficients:
        return correct, correct
    if not broadcast.start_head:
        return correct, 0
    features = model.features(images)
    found = unpack_head_for(features, broadcast.start_head, kind)
    return correct, count_correct(found, features, labels)


def declined(error: Exception, broadcast: pb.Broadcast) -> pb.ToServer:
    """The refusal that ``error`` amounts to."""
    code = pb.Refusal.REASON_FAILED
    if isinstance(error, UnpreparedError):
        code = error.code
    elif isinstance(error, CodecError):
        code = pb.Refusal.REASON_NOT_FINITE
    elif isinstance(error, RefusedError):
        code = pb.Refusal.REASON_MALFORMED
    return refusal(code, str(error), broadcast)
