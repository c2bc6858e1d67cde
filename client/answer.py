"""Answer one message of the server. Nothing here knows what carried it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from client.bank_cache import BankCache
from client.data import ClientData
from client.model import learner, preprocess_of, with_method
from client.node import Node
from client.residuals import Residuals
from protos import recast_v1_pb2 as pb
from recast_core import feedback
from recast_core.backbones import Preprocess, load_backbone
from recast_core.codec import CodecError
from recast_core.errors import RecastError
from recast_core.heads import head_kind
from recast_core.heads.wire import TRAVELLING, kind_of, pack_statistics, unpack_head
from recast_core.learner import Learner
from recast_core.messages import RefusedError, from_broadcast, hyperparameters, update_of
from recast_core.mimicry import mimic

logger = logging.getLogger("recast.client")
Tasks = Mapping[int, pb.Task]


def hello(request: pb.HelloRequest, node: Node) -> pb.Hello:
    """Which bank and which data this client has."""
    size = preprocess_of(node.settings.backbone).size
    answer = pb.Hello(holds_bank=_holds(request, node))
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
        return refusal(pb.Refusal.REASON_BANK_MISMATCH, str(error))
    prefix = int.from_bytes(delivery.bank.sha256[:4], "big")
    return pb.ToServer(bank=pb.BankReceipt(bank=prefix))


def train(broadcast: pb.Broadcast, tasks: Tasks, node: Node) -> pb.ToServer:
    """Fit the coefficients of the broadcast's task on this client's images."""
    try:
        model, data, preprocess = _prepare(broadcast, tasks, node)
        hyper = hyperparameters(broadcast)
        start = from_broadcast(model.start, broadcast)
        model.load(start)
        images, labels = _tensors(data.x_train, data.y_train, preprocess, model)
        seed = client_seed(hyper.seed, broadcast, node)
        offsets = model.fit(images, labels, data.num_classes, hyper, seed) - start
        kept = residual = None
        if hyper.error_feedback:
            kept = Residuals.of(node.cache, broadcast, tasks[broadcast.task])
            residual = kept.applicable(broadcast, len(offsets))
        encoded, left = feedback.round_update(offsets, residual, hyper, seed)
        if kept is not None:
            kept.keep(broadcast, residual, left)
        update = update_of(model.start, broadcast.task, broadcast.round, len(labels), encoded)
        return pb.ToServer(update=update)
    except (RefusedError, CodecError, RecastError) as error:
        return _declined(error, broadcast)


def head(broadcast: pb.Broadcast, tasks: Tasks, node: Node) -> pb.ToServer:
    """Tell of this client's features what the server makes a head from."""
    try:
        model, data, preprocess = _prepare(broadcast, tasks, node, classes=1)
        kind = kind_of(broadcast.head_kind)
        if kind not in TRAVELLING:
            raise RefusedError("malformed", f"a {kind} head does not travel")
        model.load(from_broadcast(model.start, broadcast))
        images, labels = _tensors(data.x_train, data.y_train, preprocess, model)
        statistics = head_kind(kind).statistics(model.features(images), labels, data.num_classes)
        return pb.ToServer(
            head=pb.HeadStatistics(
                bank=broadcast.bank,
                task=broadcast.task,
                round=broadcast.round,
                content=pack_statistics(kind, statistics, data.num_classes),
            )
        )
    except (RefusedError, RecastError) as error:
        return _declined(error, broadcast)


def evaluate(broadcast: pb.Broadcast, tasks: Tasks, node: Node) -> pb.ToServer:
    """Measure a head on this client's test images, with the coefficients and without.

    The head is the one that the broadcast brings, or one fitted on this client's own features.
    """
    try:
        model, data, preprocess = _prepare(
            broadcast, tasks, node, classes=1 if broadcast.head else 2
        )
        vector = from_broadcast(model.start, broadcast)
        kind = kind_of(broadcast.head_kind)
        if (kind in TRAVELLING) != bool(broadcast.head):
            raise RefusedError("malformed", f"an evaluation of a {kind} head, which is not there")
        test_set = _tensors(data.x_test, data.y_test, preprocess, model)
        if kind in TRAVELLING:
            correct, head_only = _with_heads(model, broadcast, vector, kind, test_set)
        else:
            train_set = _tensors(data.x_train, data.y_train, preprocess, model)
            model.load()
            head_only = _with_local(model, kind, train_set, test_set, data.num_classes)
            model.load(vector)
            correct = _with_local(model, kind, train_set, test_set, data.num_classes)
        return pb.ToServer(
            evaluation=pb.Evaluation(
                bank=broadcast.bank,
                task=broadcast.task,
                round=broadcast.round,
                examples=len(data.y_test),
                correct=correct,
                head_only_correct=head_only,
            )
        )
    except (RefusedError, RecastError) as error:
        return _declined(error, broadcast)


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
        found, _ = with_method(node.settings.backbone, method, node.settings.device)
    except RecastError as error:
        logger.error("method %s: %s", method, error)
        return False
    if found.start.sha256 != sha256:
        logger.error("method %s starts elsewhere here: another backbone or version", method)
        return False
    BankCache(node.cache).store_method(method, sha256)
    return True


class _UnpreparedError(RefusedError):
    """A refusal with its code of the wire."""

    def __init__(self, code: pb.Refusal.Reason, detail: str) -> None:
        super().__init__(pb.Refusal.Reason.Name(code), detail)
        self.code = code


def _prepare(
    broadcast: pb.Broadcast, tasks: Tasks, node: Node, classes: int = 2
) -> tuple[Learner, ClientData, Preprocess]:
    path = BankCache(node.cache).find(broadcast.bank)
    if path is None:
        raise _UnpreparedError(
            pb.Refusal.REASON_BANK_MISSING, f"bank {broadcast.bank:08x} is not in {node.cache}"
        )
    task = tasks.get(broadcast.task)
    if task is None:
        raise _UnpreparedError(
            pb.Refusal.REASON_UNKNOWN_TASK, f"task {broadcast.task} has not been announced"
        )
    try:
        model, preprocess = learner(node.settings.backbone, path, node.settings.device)
    except RecastError as error:
        if BankCache(node.cache).holds(bytes.fromhex(path.stem)):
            raise
        raise _UnpreparedError(pb.Refusal.REASON_BANK_MISSING, str(error)) from error
    data = node.data(task.name, task.source, preprocess.size)
    if data is None or not len(data.y_train):
        raise _UnpreparedError(pb.Refusal.REASON_NO_DATA, f"no images of task {task.name}")
    if len(np.unique(data.y_train)) < classes:
        raise _UnpreparedError(
            pb.Refusal.REASON_ONE_CLASS, f"the images of task {task.name} are of one class"
        )
    return model, data, preprocess


def _tensors(
    images: np.ndarray, labels: np.ndarray, preprocess: Preprocess, model: Learner
) -> tuple[Tensor, Tensor]:
    return preprocess(images).to(model.device), torch.from_numpy(labels).to(model.device)


def _with_local(
    model: Learner,
    kind: str,
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    classes: int,
) -> int:
    found = head_kind(kind).fit(model.features(train_set[0]), train_set[1], classes)
    return _correct(found, model.features(test_set[0]), test_set[1])


def _with_heads(
    model: Learner,
    broadcast: pb.Broadcast,
    vector: np.ndarray,
    kind: str,
    test_set: tuple[Tensor, Tensor],
) -> tuple[int, int]:
    """Correct with the head that was sent, and with the one for the start: 0 if there is none."""
    model.load(vector)
    features = model.features(test_set[0])
    correct = _correct(_sent_head(broadcast.head, kind, features), features, test_set[1])
    if not broadcast.coefficients:
        return correct, correct
    if not broadcast.start_head:
        return correct, 0
    model.load()
    features = model.features(test_set[0])
    found = _sent_head(broadcast.start_head, kind, features)
    return correct, _correct(found, features, test_set[1])


def _sent_head(content: bytes, kind: str, features: Tensor) -> nn.Linear:
    found = unpack_head(content, kind)
    if found.in_features != features.shape[1]:
        raise RefusedError(
            "malformed", f"a head for width {found.in_features}, features have {features.shape[1]}"
        )
    return found.to(features.device)


@torch.no_grad()
def _correct(head: nn.Linear, features: Tensor, labels: Tensor) -> int:
    return int((head(features).argmax(1) == labels).sum())


def _declined(error: Exception, broadcast: pb.Broadcast) -> pb.ToServer:
    code = pb.Refusal.REASON_FAILED
    if isinstance(error, _UnpreparedError):
        code = error.code
    elif isinstance(error, CodecError):
        code = pb.Refusal.REASON_NOT_FINITE
    elif isinstance(error, RefusedError):
        code = pb.Refusal.REASON_MALFORMED
    return refusal(code, str(error), broadcast)
