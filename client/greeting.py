"""What a client answers before any round: which bank and which data it has."""

from __future__ import annotations

import logging
from collections.abc import Sized

from client.asked import Asked, UnpreparedError
from client.discreet import hide_counts, is_discreet
from client.holdings import D, Holdings, M
from client.learners import own_start
from protos import recast_v1_pb2 as pb
from recast_core.classes import list_hash
from recast_core.errors import RecastError
from recast_core.text import plain

logger = logging.getLogger("recast.client")


def greet(asked: Asked, request: pb.HelloRequest, me: Holdings[M, D]) -> pb.ToServer:
    """Which bank and which data this client has."""
    reply = pb.Hello(holds_bank=_has_bank(request, me), client=me.number + 1)
    for task in request.tasks:
        try:
            data = me.data(task)
        except RecastError as error:
            logger.warning("no data for task %s: %s", task.name, error)
            reason = pb.Refusal.REASON_CLASSES if task.classes else pb.Refusal.REASON_FAILED
            reply.lacks.add(task=task.id, reason=reason, detail=plain(error.told))
            continue
        learns_from: Sized = ()
        if data is not None:
            label_free = me.settings.objective == "label-free"
            learns_from = data.labelled if label_free else data.labels
        if data is None or not len(learns_from):
            if data is not None and len(data.labelled):
                detail = f"none of its {len(data.labelled)} training images has a label"
                logger.warning("no part in task %s: %s", task.name, detail)
            else:
                detail = plain(me.lacks(task))
            reply.lacks.add(task=task.id, reason=pb.Refusal.REASON_NO_DATA, detail=detail)
            continue
        reply.tasks.add(
            task=task.id,
            train_examples=len(learns_from),
            test_examples=data.test_examples,
            classes=data.classes,
            local_classes=data.local_classes,
            class_hash=list_hash(data.class_names),
            class_names=data.class_names if task.wants_classes else (),
            keeps_head=task.keeps_head,
        )
        if is_discreet(me):
            hide_counts(reply.tasks[-1])
    me.remember(asked.tasks_in({told.task: told.class_hash for told in reply.tasks}))
    return pb.ToServer(hello=reply)


def _has_bank(request: pb.HelloRequest, me: Holdings[M, D]) -> bool:
    """Whether the bank, or the method's start, is here or can be made here."""
    method, sha256 = request.method, request.bank.sha256
    if not method and me.holds(sha256):
        return True
    try:
        start = own_start(me.settings, method)
    except RecastError as error:
        if not method:
            raise
        logger.error("method %s: %s", method, error)
        return False
    if start is None or start.sha256 != sha256:
        if method:
            logger.error("method %s starts elsewhere here: another backbone or version", method)
        return False
    me.keep(start, method)
    return True


def store_bank(delivery: pb.BankDelivery, me: Holdings[M, D]) -> pb.ToServer:
    """Keep the bank that was sent, if it is what it says."""
    try:
        me.store(delivery.content, delivery.bank.sha256)
    except RecastError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise UnpreparedError(pb.Refusal.REASON_BANK_MISMATCH, str(error)) from error
    prefix = int.from_bytes(delivery.bank.sha256[:4], "big")
    return pb.ToServer(bank=pb.BankReceipt(bank=prefix))
