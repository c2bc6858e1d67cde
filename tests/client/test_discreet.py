"""With noise of its own a client tells no count, and answers nothing that noise does not cover."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from protos import recast_v1_pb2 as pb
from recast_core.wire.gaussian import gaussian
from recast_core.wire.messages import Hyperparameters, from_update, to_broadcast

if TYPE_CHECKING:
    from conftest import Caller


@pytest.fixture
def private(caller: Caller) -> Caller:
    """A client on a machine of its own, in a run with local noise."""
    caller.settings = replace(caller.settings, dp_epsilon=1.0, dp="local")
    caller.hello()
    caller.deliver()
    return caller


def asked(caller: Caller, transforms: str) -> pb.Broadcast:
    hyper = Hyperparameters(epochs=1, batch=16, learning_rate=0.05, bits=32, transforms=transforms)
    return to_broadcast(caller.bank, 1, 1, caller.bank.initial_vector.numpy(), hyper)


def test_hello_says_that_there_are_images_and_not_how_many(private: Caller) -> None:
    first, one_class = private.hello().hello.tasks
    assert (first.train_examples, first.test_examples, first.local_classes) == (1, 0, 2)
    assert (one_class.train_examples, one_class.local_classes) == (1, 1)


def test_an_update_has_fresh_noise_and_the_weight_of_one_image(private: Caller) -> None:
    question = asked(private, gaussian(0.01, 3.0))
    updates = [private.train(question).update for _ in range(2)]
    assert [update.examples for update in updates] == [1, 1]
    one, two = (from_update(private.bank, update, 32) for update in updates)
    assert not np.array_equal(one, two)
    assert np.linalg.norm(one) > 0.1  # of eight numbers with a deviation of 3; the clip is 0.01


def test_a_round_without_the_promised_noise_is_refused(private: Caller) -> None:
    reply = private.train(asked(private, ""))
    assert reply.WhichOneof("body") == "refusal"
    assert "without the noise that --dp local promises" in reply.refusal.detail


@pytest.mark.parametrize("kind", ["central", "distributed"])
def test_a_hidden_update_is_not_sent_without_the_promised_clip_and_noise(
    ready: Caller, kind: str
) -> None:
    ready.settings = replace(ready.settings, dp_epsilon=1.0, dp=kind, secure_aggregation=True)
    question = asked(ready, "")
    assert "asked for openly" in ready.train(question).refusal.detail
    question.secure.CopyFrom(pb.SecureRound(roster=1, nonce=1, levels=9, alike=True))
    assert "without the clip" in ready.train(question).refusal.detail
    question.secure.clips = True
    without = "without the noise that --dp distributed promises"
    assert (without in ready.train(question).refusal.detail) == (kind == "distributed")
    question.secure.deviation = 9.0
    assert "roster 1 is not here" in ready.train(question).refusal.detail


def test_a_hidden_update_is_not_sent_without_the_clip_of_the_settings(ready: Caller) -> None:
    ready.settings = replace(ready.settings, secure_aggregation=True, clip="0.5")
    question = asked(ready, "")
    question.secure.CopyFrom(pb.SecureRound(roster=1, nonce=1, levels=9))
    assert "without the clip" in ready.train(question).refusal.detail


def test_a_loss_is_not_told_whoever_asks_for_it(private: Caller) -> None:
    question = asked(private, gaussian(0.01, 3.0))
    question.hyperparameters.report_loss = True
    reply = private.train(question)
    assert reply.WhichOneof("body") == "refusal"
    assert "a loss" in reply.refusal.detail


@pytest.mark.parametrize("kind", ["evaluate", "head"])
def test_neither_accuracies_nor_head_statistics_are_told(private: Caller, kind: str) -> None:
    reply = private.call(
        pb.ToClient(**{kind: private.broadcast()}),
        "evaluate" if kind == "evaluate" else "query.head",
    )  # type: ignore[arg-type]
    assert reply.WhichOneof("body") == "refusal"
    assert "has no noise for" in reply.refusal.detail


def test_head_statistics_are_refused_with_central_noise_too(ready: Caller) -> None:
    ready.settings = replace(ready.settings, dp_epsilon=1.0)
    reply = ready.call(pb.ToClient(head=ready.broadcast()), "query.head")
    assert "has no noise for" in reply.refusal.detail
    assert ready.evaluate().WhichOneof("body") == "evaluation"


def test_head_statistics_are_not_told_where_updates_are_hidden(ready: Caller) -> None:
    ready.settings = replace(ready.settings, secure_aggregation=True)
    reply = ready.call(pb.ToClient(head=ready.broadcast()), "query.head")
    assert "does not hide" in reply.refusal.detail


def test_a_client_that_names_a_least_sum_sends_nothing_openly(ready: Caller) -> None:
    """Its own node config says so, whatever the run's settings are."""
    assert ready.train().WhichOneof("body") == "update"
    ready.own["least-sum"] = 4
    assert "asked for openly" in ready.train().refusal.detail
    told = ready.call(pb.ToClient(keys=pb.KeyRequest()), "query.keys").keys
    assert told.least == 4
    members = [told.member, *(pb.SecureMember(public=bytes([n] * 32)) for n in range(3))]
    request = pb.KeyRequest(roster=1, members=members)
    reply = ready.call(pb.ToClient(keys=request), "query.keys")
    assert "4 clients 3 make a sum" in reply.refusal.detail


@pytest.mark.parametrize("least", [2, 23, "many", 3.5, True])
def test_a_least_sum_that_is_none_is_one_line(ready: Caller, least: float | str) -> None:
    ready.own["least-sum"] = least
    assert "from 3 to 22" in ready.train().refusal.detail
