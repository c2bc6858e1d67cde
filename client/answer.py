"""Answer one message of the server. Nothing here knows what carried it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from client.bank_cache import BankCache
from client.data import ClientData
from client.model import attached, preprocess_of
from client.node import Node
from protos import recast_v1_pb2 as pb
from recast_core.backbones import Preprocess, load_backbone
from recast_core.codec import CodecError
from recast_core.errors import RecastError
from recast_core.fitting import features_of
from recast_core.folded import FoldedClient, ImageStore, SplitModel
from recast_core.folded import train as fit_clients
from recast_core.heads.ridge import ridge_head
from recast_core.messages import RefusedError, from_broadcast, hyperparameters, to_update
from recast_core.mimicry import mimic
from recast_core.model import RecastModel

logger = logging.getLogger("recast.client")
Tasks = Mapping[int, pb.Task]


def hello(request: pb.HelloRequest, node: Node) -> pb.Hello:
    """Which bank and which data this client has."""
    size = preprocess_of(node.settings.backbone).size
    answer = pb.Hello(holds_bank=_holds(request.bank.sha256, node), client=node.number + 1)
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
        model, data, preprocess = _prepare(broadcast, tasks, node)
        hyper = hyperparameters(broadcast)
        bank = model.net.bank
        start = from_broadcast(bank, broadcast)
        images, labels = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
        seed = client_seed(hyper.seed, broadcast, node)
        # A batch of one client: the arithmetic of every grid is then the same.
        found = fit_clients(
            model,
            ImageStore(images, preprocess, model.prefix, model.net.device),
            [FoldedClient(torch.arange(len(labels)), labels, seed)],
            data.num_classes,
            epochs=hyper.epochs,
            batch=hyper.batch,
            learning_rate=hyper.learning_rate,
            start=torch.from_numpy(start),
        )
        if not bool(found.finite[0]):
            raise RecastError("training ended in NaN or infinity: lower the learning rate")
        offsets = found.coefficients[0].numpy() - start
        update = to_update(bank, broadcast.task, broadcast.round, len(labels), offsets, hyper.bits)
        return pb.ToServer(update=update)
    except (RefusedError, CodecError, RecastError) as error:
        return declined(error, broadcast)


def evaluate(broadcast: pb.Broadcast, tasks: Tasks, node: Node) -> pb.ToServer:
    """Measure a local head on this client's test images, with the coefficients and without."""
    try:
        model, data, preprocess = _prepare(broadcast, tasks, node)
        net = model.net
        train_set = _tensors(data.x_train, data.y_train, preprocess, net)
        test_set = _tensors(data.x_test, data.y_test, preprocess, net)
        net.coefficients.load()
        head_only = _correct(net, train_set, test_set, data.num_classes)
        net.coefficients.load(torch.from_numpy(from_broadcast(net.bank, broadcast)))
        return pb.ToServer(
            evaluation=pb.Evaluation(
                bank=broadcast.bank,
                task=broadcast.task,
                round=broadcast.round,
                examples=len(data.y_test),
                correct=_correct(net, train_set, test_set, data.num_classes),
                head_only_correct=head_only,
            )
        )
    except (RefusedError, RecastError) as error:
        return declined(error, broadcast)


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
    sequence = np.random.SeedSequence([seed, broadcast.task, broadcast.round, node.number])
    return int(sequence.generate_state(1)[0])


def _holds(sha256: bytes, node: Node) -> bool:
    cache = BankCache(node.cache)
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


class UnpreparedError(RefusedError):
    """A refusal with its code of the wire."""

    def __init__(self, code: pb.Refusal.Reason, detail: str) -> None:
        super().__init__(pb.Refusal.Reason.Name(code), detail)
        self.code = code


def _prepare(
    broadcast: pb.Broadcast, tasks: Tasks, node: Node
) -> tuple[SplitModel, ClientData, Preprocess]:
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
        model, preprocess = attached(node.settings.backbone, path, node.settings.device)
    except RecastError as error:
        if BankCache(node.cache).holds(bytes.fromhex(path.stem)):
            raise
        raise UnpreparedError(pb.Refusal.REASON_BANK_MISSING, str(error)) from error
    data = node.data(task.name, task.source, preprocess.size)
    if data is None or not len(data.y_train):
        raise UnpreparedError(pb.Refusal.REASON_NO_DATA, f"no images of task {task.name}")
    if len(np.unique(data.y_train)) < 2:
        raise UnpreparedError(
            pb.Refusal.REASON_ONE_CLASS, f"the images of task {task.name} are of one class"
        )
    return model, data, preprocess


def _tensors(
    images: np.ndarray, labels: np.ndarray, preprocess: Preprocess, net: RecastModel
) -> tuple[Tensor, Tensor]:
    device = net.coefficients.flat.device
    return preprocess(images).to(device), torch.from_numpy(labels).to(device)


@torch.no_grad()
def _correct(
    net: RecastModel,
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    classes: int,
) -> int:
    head = ridge_head(features_of(net, train_set[0]), train_set[1], classes)
    predicted = head(features_of(net, test_set[0])).argmax(1)
    return int((predicted == test_set[1]).sum())


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
