"""What a client decides, written once for all engines: see `client.turn`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from torch import Tensor

from client import kept
from client.asked import Asked, UnpreparedError, refusal
from client.discreet import check_promise, is_discreet, own_noise, own_uniform
from client.greeting import greet, store_bank
from client.holdings import D, Holdings, M
from client.kept_heads import keep_head, kept_head
from client.label_mix import listened, wanted_mix
from client.residuals import Residuals
from client.secure import ContradictionError, Hiding, RosterError
from client.turn import Exam, Lesson, Look, Turn
from protos import recast_v1_pb2 as pb
from recast_core.classes import list_hash
from recast_core.errors import RecastError
from recast_core.heads import head_kind
from recast_core.learner import Learned
from recast_core.pulse import Taught, about, learned
from recast_core.start import Start
from recast_core.wire.codec import CodecError, Vector, decode
from recast_core.wire.head_bytes import kind_of, pack_statistics
from recast_core.wire.kept_head import DEPLOYED, Kept
from recast_core.wire.loss import pack_loss
from recast_core.wire.messages import (
    RefusedError,
    update_of,
)
from recast_core.wire.rounding import client_seed
from recast_core.wire.transforms import round_update


def answer(asked: Asked, me: Holdings[M, D]) -> Turn[M, D]:
    """A client's turn to answer a message of the server; whatever it says, there is a reply."""
    broadcast = None
    try:
        request, broadcast = asked.request, asked.broadcast
        match request.WhichOneof("body"):
            case "hello":
                return greet(asked, request.hello, me)
            case "bank":
                return store_bank(request.bank, me)
            case "train":
                return (yield from _train(asked, request.train, me))
            case "head":
                return (yield from _head(asked, request.head, me))
            case "keys":
                return pb.ToServer(keys=_hiding(me).keep_keys(request.keys))
            case "open":
                return pb.ToServer(opened=_hiding(me).open(request.open))
            case "evaluate":
                return (yield from _evaluate(asked, request.evaluate, me))
            case _:
                raise UnpreparedError(pb.Refusal.REASON_MALFORMED, "an empty message")
    except DecodeError:
        return refusal(pb.Refusal.REASON_MALFORMED, "bytes that are no message of ours")
    except RosterError as error:
        return refusal(pb.Refusal.REASON_ROSTER, str(error), broadcast)
    except ContradictionError as error:
        return refusal(pb.Refusal.REASON_CONTRADICTS, str(error), broadcast)
    except UnpreparedError as error:
        return refusal(error.code, str(error), broadcast)
    except CodecError as error:
        return refusal(pb.Refusal.REASON_NOT_FINITE, str(error), broadcast)
    except RefusedError as error:
        return refusal(pb.Refusal.REASON_MALFORMED, str(error), broadcast)
    except RecastError as error:
        return refusal(pb.Refusal.REASON_FAILED, str(error), broadcast, error.told)


def _ready(broadcast: pb.Broadcast, me: Holdings[M, D], classes: int) -> tuple[M, D]:
    """What this client takes part with, if its images are of so many classes.

    Raises:
        UnpreparedError: it cannot.
    """
    model = me.model(broadcast.bank)
    if model is None:
        raise UnpreparedError(
            pb.Refusal.REASON_BANK_MISSING, f"bank {broadcast.bank:08x} is not here"
        )
    task = me.tasks.get(broadcast.task)
    if task is None:
        raise UnpreparedError(
            pb.Refusal.REASON_UNKNOWN_TASK, f"task {broadcast.task} has not been announced"
        )
    about(task.name, broadcast.round)
    data = me.data(task, broadcast.round)
    if data is not None and task.class_hash not in (0, list_hash(data.class_names)):
        raise UnpreparedError(
            pb.Refusal.REASON_UNKNOWN_TASK,
            f"the classes of task {task.name} have changed since they were announced",
        )
    if data is None or not len(data.labels if classes else data.labelled):
        raise UnpreparedError(pb.Refusal.REASON_NO_DATA, f"no images of task {task.name}")
    if data.local_classes < classes:
        raise UnpreparedError(
            pb.Refusal.REASON_ONE_CLASS, f"the images of task {task.name} are of one class"
        )
    return model, data


def _train(asked: Asked, broadcast: pb.Broadcast, me: Holdings[M, D]) -> Turn[M, D]:
    """Fit the vector of the broadcast's task on this client's images."""
    hyper = asked.hyper
    check_promise(me, broadcast, hyper)
    without_labels = hyper.objective == "label-free"
    enough = {"split-ridge": 2, "cross-entropy": 1, "label-free": 0}[hyper.objective]
    model, data = _ready(broadcast, me, enough)
    start, local, task = asked.vector(model.start), False, me.tasks[broadcast.task]
    stays, began = DEPLOYED, 0
    if hyper.objective != "split-ridge":
        stays = _kept(broadcast, me, model)
        kept.check_classes(model, data, stays)
        local = yield from kept.own_statistics_help(me, model, data, task, stays)
        if broadcast.candidates and not me.settings.dp_epsilon:
            others = asked.candidates(model.start)
            began = yield from kept.nearest(model, data, {0: start, **others}, stays, local)
            start = others.get(began, start)
    mix = None
    if without_labels:
        told, mix = yield from wanted_mix(broadcast, me, model, data, stays, local)
        if told:
            heard = listened(model.start, broadcast, len(data.labelled), told)
            heard.started = began
            return pb.ToServer(update=heard)
    seed = client_seed(hyper.seed, broadcast.task, broadcast.round, me.number)
    found: Learned = yield Lesson(model, data, start, hyper, seed, local, stays, mix)
    trained = found.vector
    if not np.isfinite(trained).all():
        raise RecastError("training ended in NaN or infinity: lower the learning rate")
    if found.loss:
        learned(Taught(me.number, task.id, task.name, broadcast.round, found.loss))
    if without_labels:
        yield from kept.check_diversity(model, data, (start, trained), stays, local)
    if broadcast.HasField("secure"):
        return pb.ToServer(update=_hidden(trained - asked.vector(model.start), asked, me, data))
    unsaid = None
    if hyper.error_feedback:
        unsaid = Residuals.of(me.residuals, broadcast, task, me.number)
    noise = own_noise(me, seed)
    encoded = round_update(trained - start, unsaid, broadcast, hyper, seed, noise)
    examples = len(data.labelled) if without_labels else len(data.labels)
    if is_discreet(me):
        examples = 1
    update = update_of(model.start, broadcast.task, broadcast.round, examples, encoded)
    update.started = began
    if hyper.report_loss:
        update.loss = pack_loss(found.loss)
    return pb.ToServer(update=update)


def _hidden(offsets: Vector, asked: Asked, me: Holdings[M, D], data: D) -> pb.Update:
    """The update whose offsets ``[D]`` from the broadcast the sum alone will tell."""
    broadcast, hyper = asked.request.train, replace(asked.hyper, bits=32, stochastic=False)
    seed = client_seed(hyper.seed, broadcast.task, broadcast.round, me.number)
    said = decode(round_update(offsets, None, broadcast, hyper, seed), len(offsets), hyper.bits)
    examples = len(data.labelled if hyper.objective == "label-free" else data.labels)
    if is_discreet(me):
        examples = 1
    salt, shares = _hiding(me).seal(said, examples, broadcast, own_uniform(me, seed))
    return pb.Update(salt=salt, shares=shares, examples=examples, **_about(broadcast))


def _hiding(me: Holdings[M, D]) -> Hiding:
    return Hiding(me.residuals, me.number, me.identity, me.least_sum)


def _head(asked: Asked, broadcast: pb.Broadcast, me: Holdings[M, D]) -> Turn[M, D]:
    """Tell of this client's features what the server makes a head from."""
    if me.settings.dp_epsilon:
        raise RefusedError("malformed", "head statistics, which --dp-epsilon has no noise for")
    if me.settings.secure_aggregation:
        raise RefusedError("malformed", "head statistics, which --secure-aggregation does not hide")
    model, data = _ready(broadcast, me, classes=1)
    kind = kind_of(broadcast.head_kind)
    if not head_kind(kind).travels:
        raise RefusedError("malformed", f"a {kind} head does not travel")
    features: Tensor = yield Look(model, data, _unless_start(asked, model.start), told=True)
    labels = data.labels.to(features.device)
    statistics = head_kind(kind).statistics(features, labels, data.classes)
    content = pack_statistics(kind, statistics, data.classes)
    return pb.ToServer(head=pb.HeadStatistics(content=content, **_about(broadcast)))


def _evaluate(asked: Asked, broadcast: pb.Broadcast, me: Holdings[M, D]) -> Turn[M, D]:
    """Measure a head on this client's test images, with the coefficients and without.

    The head is the one that the broadcast brings, or one fitted on this client's own features.
    """
    if is_discreet(me):
        dp = me.settings.dp
        raise RefusedError("malformed", f"an evaluation, which --dp {dp} has no noise for")
    kind = kind_of(broadcast.head_kind)
    stays = head_kind(kind).kept
    model, data = _ready(broadcast, me, classes=0 if stays else 1 if broadcast.head else 2)
    vector = _unless_start(asked, model.start)
    if stays:
        task, classifier = me.tasks[broadcast.task], _kept(broadcast, me, model)
        found = yield from kept.examine(me, model, data, task, vector, classifier)
        return _evaluation(broadcast, data, found)
    keep_head(me.residuals, broadcast)
    if head_kind(kind).travels != bool(broadcast.head):
        raise RefusedError("malformed", f"an evaluation of a {kind} head, which is not there")
    correct: int = yield Exam(model, data, vector, kind, broadcast.head)
    if vector is None:
        head_only = correct
    elif broadcast.head and not broadcast.start_head:
        head_only = 0
    else:
        start_head = broadcast.start_head if broadcast.head else b""
        head_only = yield Exam(model, data, None, kind, start_head)
    return _evaluation(broadcast, data, {"correct": correct, "head_only_correct": head_only})


def _kept(broadcast: pb.Broadcast, me: Holdings[M, D], model: M) -> Kept:
    """The classifier that the broadcast's task keeps.

    Raises:
        UnpreparedError: it is an earlier task's, and not here.
    """
    found = kept_head(me.residuals, model.start, broadcast)
    if found is None:
        raise UnpreparedError(
            pb.Refusal.REASON_HEAD_MISSING, f"head {broadcast.kept.id:08x} is not here"
        )
    return found


def _evaluation(broadcast: pb.Broadcast, data: D, found: dict[str, int]) -> pb.ToServer:
    told = {"examples": data.test_examples, **found, **_about(broadcast)}
    return pb.ToServer(evaluation=pb.Evaluation(**told))


def _unless_start(asked: Asked, start: Start) -> Vector | None:
    """The broadcast's vector, or ``None`` for the start's."""
    vector = asked.vector(start)
    return vector if asked.broadcast and asked.broadcast.coefficients else None


def _about(broadcast: pb.Broadcast) -> dict[str, Any]:
    return {"bank": broadcast.bank, "task": broadcast.task, "round": broadcast.round}
