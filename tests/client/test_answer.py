"""What a client answers, and that its update says nothing but its coefficients."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from client import learners as client_model
from client.answer import answer
from client.asked import Asked
from client.data import load_dataset, parse_task
from client.node import Node
from client.turn import Lesson
from protos import recast_v1_pb2 as pb
from recast_core.backbones import load_backbone
from recast_core.wire.messages import Hyperparameters, from_update, to_broadcast

if TYPE_CHECKING:
    from conftest import Caller

HYPER = Hyperparameters(epochs=1, batch=16, learning_rate=0.05)
Reason = pb.Refusal


def reason(reply: pb.ToServer) -> str:
    assert reply.WhichOneof("body") == "refusal", reply
    assert reply.refusal.detail
    assert "\n" not in reply.refusal.detail
    return pb.Refusal.Reason.Name(reply.refusal.reason).removeprefix("REASON_")


def test_hello_tells_of_the_bank_and_of_the_data(caller: Caller) -> None:
    first = caller.hello().hello
    assert not first.holds_bank
    assert caller.deliver().bank.bank == caller.bank.prefix
    second = caller.hello().hello
    assert second.holds_bank
    assert list(first.tasks) == list(second.tasks)
    assert [data.task for data in first.tasks] == [1, 3], "tasks without data are absent"
    data = first.tasks[0]
    assert (data.train_examples, data.test_examples) == (48, 24)
    assert (data.classes, data.local_classes) == (3, 3)
    assert first.tasks[1].local_classes == 1


def test_the_bank_is_stored_under_its_sha256(caller: Caller) -> None:
    caller.deliver()
    path = caller.cache / f"{caller.bank.sha256.hex()}.safetensors"
    assert path.read_bytes() == caller.bank.to_bytes()


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_bytes_that_are_no_bank_are_refused(caller: Caller, content: bytes) -> None:
    assert reason(caller.deliver(content)) == "BANK_MISMATCH"
    assert not caller.hello().hello.holds_bank


def test_another_bank_than_the_one_announced_is_refused(caller: Caller) -> None:
    assert reason(caller.deliver(sha256=bytes(32))) == "BANK_MISMATCH"
    assert not caller.cache.exists()


def test_a_damaged_file_counts_as_absent_and_the_bank_is_fetched_again(ready: Caller) -> None:
    path = ready.cache / f"{ready.bank.sha256.hex()}.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert not ready.hello().hello.holds_bank
    ready.deliver()
    assert ready.hello().hello.holds_bank
    assert ready.train().WhichOneof("body") == "update"


@pytest.mark.parametrize("what", ["train", "evaluate"])
def test_a_file_damaged_between_rounds_is_reported_missing(
    ready: Caller, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_model, "_loaded", {})  # as in a new process
    path = ready.cache / f"{ready.bank.sha256.hex()}.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert reason(getattr(ready, what)()) == "BANK_MISSING"
    assert not path.exists()


@pytest.mark.parametrize("what", ["train", "evaluate"])
def test_a_client_says_why_it_cannot_take_part(caller: Caller, what: str) -> None:
    ask = getattr(caller, what)
    assert reason(ask()) == "BANK_MISSING"
    caller.deliver()
    assert reason(ask()) == "UNKNOWN_TASK", "it was not greeted"
    caller.hello()
    assert reason(ask(caller.broadcast(task=9))) == "UNKNOWN_TASK"
    assert reason(ask(caller.broadcast(task=3))) == "ONE_CLASS"
    assert reason(ask(caller.broadcast(task=4))) == "NO_DATA"
    assert reason(ask(caller.broadcast(task=2))) == "FAILED"
    wrong = caller.broadcast()
    wrong.bank ^= 1
    assert reason(ask(wrong)) == "BANK_MISSING"


@pytest.mark.parametrize("what", ["train", "evaluate"])
@pytest.mark.parametrize("coefficients", [b"abc", b"\x00\x7e" * 8])
def test_coefficients_that_are_wrong_are_malformed(
    ready: Caller, what: str, coefficients: bytes
) -> None:
    broadcast = ready.broadcast()
    broadcast.coefficients = coefficients
    refused = getattr(ready, what)(broadcast)
    assert reason(refused) == "MALFORMED"
    assert (refused.refusal.task, refused.refusal.round) == (1, 1)


@pytest.mark.parametrize("field", ["epochs", "batch", "bits", "learning_rate"])
def test_hyperparameters_that_are_absent_are_refused(ready: Caller, field: str) -> None:
    broadcast = ready.broadcast()
    broadcast.hyperparameters.ClearField(field)  # type: ignore[arg-type]
    assert reason(ready.train(broadcast)) == "MALFORMED"


def test_an_update_is_about_the_round_that_was_asked(ready: Caller) -> None:
    update = ready.train(ready.broadcast(round_=5)).update
    assert (update.bank, update.task, update.round) == (ready.bank.prefix, 1, 5)
    assert update.examples == 48
    offsets = from_update(ready.bank, update, 8)
    assert offsets.any()
    assert np.abs(offsets).max() < 1


def test_the_same_message_gives_the_same_update(ready: Caller) -> None:
    first, again = ready.train(), ready.train()
    assert first.SerializeToString() == again.SerializeToString()
    other = ready.train(ready.broadcast(round_=2))
    assert other.update.coefficients != first.update.coefficients
    ready.share = 1
    assert ready.train().update.coefficients != first.update.coefficients


def test_training_starts_from_the_broadcast(ready: Caller) -> None:
    from_start, from_shift = ready.train(), ready.train(ready.broadcast(shift=0.5))
    assert from_start.update.coefficients != from_shift.update.coefficients
    # One epoch of three steps at a rate of 0.05 stays near where it began.
    assert np.abs(from_update(ready.bank, from_shift.update, 8)).max() < 0.3


@pytest.mark.parametrize("bits", [32, 8, 1])
def test_an_update_is_its_coefficients_and_a_handful_of_numbers(ready: Caller, bits: int) -> None:
    broadcast = ready.broadcast()
    broadcast.hyperparameters.bits = bits
    reply = ready.train(broadcast)
    body = reply.SerializeToString()
    assert len(reply.update.coefficients) == -(-ready.bank.sent * bits // 8)
    assert len(body) <= len(reply.update.coefficients) + 27
    # Numbers of templates, images, backbone and head, in any precision that could be meant.
    spec = parse_task(f"a={ready.tasks[0].source}")
    data = load_dataset(spec, 8)
    backbone = load_backbone(ready.settings.backbone)
    state = backbone.model.state_dict()
    secrets = {
        "templates": torch.cat([group.templates.flatten() for group in ready.bank.groups]),
        "images": torch.from_numpy(data.x_train.reshape(-1).astype(np.float32)),
        "pixels": backbone.preprocess(data.x_train).flatten(),
        "head": torch.cat([state["linear.weight"].flatten(), state["linear.bias"]]),
    }
    for name, tensor in secrets.items():
        distinct = tensor[(tensor != 0) & (tensor != 1)].unique().numpy()
        for number in distinct[:2000].astype("<f4"):
            assert number.tobytes() not in body, name
    raw = data.x_train.reshape(-1).tobytes()
    assert not any(
        raw[at : at + 4] in body for at in range(0, len(raw) - 4) if any(raw[at : at + 4])
    )


def test_an_update_does_not_change_its_length_with_the_data(ready: Caller) -> None:
    lengths = set()
    for share in (0, 1):
        ready.share = share
        lengths |= {len(ready.train(ready.broadcast(round_=r)).SerializeToString()) for r in (1, 2)}
    assert len(lengths) == 1


def test_an_evaluation_counts_test_images_and_changes_nothing(ready: Caller) -> None:
    found = ready.evaluate(ready.broadcast(shift=0.4)).evaluation
    assert (found.bank, found.task, found.round) == (ready.bank.prefix, 1, 1)
    assert found.examples == 24
    assert 0 <= found.correct <= 24
    at_start = ready.evaluate().evaluation
    assert at_start.correct == at_start.head_only_correct == found.head_only_correct
    assert ready.evaluate(ready.broadcast(shift=0.4)).evaluation == found
    assert at_start.correct > 12, "patterns of three classes are told apart"


def test_seeds_differ_between_clients_tasks_and_rounds(ready: Caller) -> None:
    def seed_of(seed: int, task: int, round_: int, number: int) -> int:
        hyper = replace(HYPER, seed=seed)
        message = to_broadcast(ready.bank, task, round_, ready.bank.initial_vector.numpy(), hyper)
        me = Node(number, ready.cache, None, (0, 2), ready.settings)
        me.remember({task: pb.Task(id=task, name="a", source=ready.tasks[0].source)})
        work = next(answer(Asked(pb.ToClient(train=message).SerializeToString()), me))
        assert isinstance(work, Lesson)
        return work.seed

    seeds = {
        seed_of(seed, task, round_, number)
        for seed in (0, 1)
        for task in (1, 2)
        for round_ in (1, 2)
        for number in (0, 1)
    }
    assert len(seeds) == 16
