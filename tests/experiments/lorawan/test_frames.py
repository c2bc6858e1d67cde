"""Frames of LoRaWAN fit 51 bytes; device and server agree on the state, whatever is lost."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from client.lorawan import Device
from protos import lorawan as wire
from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from recast_core.airtime import Duty, frame_seconds
from recast_core.errors import RecastError
from recast_core.wire.codec import Vector, encode
from server.flower import server_identity
from server.link.identity import node_id
from server.lorawan.chirpstack import Uplink
from server.lorawan.grid import LoraGrid
from server.lorawan.states import Ask, DeviceState

BANK = bytes(range(32))
COUNT = 48
HYPER = pb.Hyperparameters(epochs=4, batch=32, learning_rate=0.02, bits=5, seed=7)


def test_an_update_and_a_broadcast_of_48_numbers_at_5_bits_fit_one_frame() -> None:
    encoded = encode(np.linspace(-1, 1, COUNT, dtype=np.float32), 5)
    update = wire.Said(
        wire.Up.UPDATE, 255, 255, 255, 65535, 1 << 31, 5, encoded.scale, encoded.data
    )
    told = wire.Told(wire.Down.TRAIN, 255, 255, 65535, 255, 255, 5, encoded.scale, encoded.data)
    config = wire.Config(255, pb.Broadcast(hyperparameters=HYPER, head_kind=5).SerializeToString())
    announce = wire.Announce(255, 255, 255, 1 << 31, 1 << 31, 65535, 65535, 1000, 1000, 1 << 63)
    for frame, most in ((update, 44), (announce, 51)):
        raw = wire.pack_up(frame)
        assert len(raw) <= most
        assert wire.unpack_up(raw) == frame
    for down, most in ((told, 41), (config, 51)):
        raw = wire.pack_down(down)
        assert len(raw) <= most
        assert wire.unpack_down(raw) == down


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\xf0abc", b"\x30\x00", b"\x10short", b"\x3f" * 20])
def test_bytes_that_are_no_frame_are_said_to_be_none(raw: bytes) -> None:
    with pytest.raises(wire.FrameError):
        wire.unpack_up(raw)


def test_more_than_a_frame_takes_is_refused() -> None:
    with pytest.raises(wire.FrameError, match="a frame carries 51"):
        wire.pack_up(wire.Said(wire.Up.EVALUATION, 0, 0, 1, 1, body=bytes(60)))


class App:
    """A ClientApp that remembers what it trained from."""

    def __init__(self, *, bank: bool = True, data: bool = True) -> None:
        self.bank, self.data = bank, data
        self.trained: list[Vector] = []

    def __call__(self, type_: str, body: bytes) -> bytes:
        message = pb.ToClient.FromString(body)
        if type_ == "query.hello":
            hello = pb.Hello(holds_bank=self.bank, client=9)
            if self.data:
                hello.tasks.add(task=1, train_examples=60, test_examples=30, classes=10)
            return pb.ToServer(hello=hello).SerializeToString()
        if type_ == "evaluate":
            found = pb.Evaluation(bank=1, task=1, round=2, examples=30, correct=20)
            return pb.ToServer(evaluation=found).SerializeToString()
        assert message.train.bank == int.from_bytes(BANK[:4], "big")
        assert message.train.hyperparameters == HYPER
        self.trained.append(np.frombuffer(message.train.coefficients, "<f4"))
        encoded = encode(np.linspace(-1, 1, COUNT, dtype=np.float32), 5)
        update = pb.Update(examples=60, scale=encoded.scale, coefficients=encoded.data)
        return pb.ToServer(update=update).SerializeToString()


def device(app: App, **options: float) -> Device:
    return Device(app, BANK, coefficients=COUNT, task=(1, "a"), **options)  # type: ignore[arg-type]


def test_a_device_without_bank_or_images_says_so_at_once() -> None:
    with pytest.raises(RecastError, match="bank 00010203 is not on this device"):
        device(App(bank=False))
    with pytest.raises(RecastError, match="no images of a on this device"):
        device(App(data=False))


def test_a_device_keeps_its_duty_cycle() -> None:
    one, now = device(App(), poll=0.0), 0.0
    for _ in range(20):
        now += one.seconds_to_wait(now)
        frame = one.uplink(now)
        assert len(frame) <= wire.MOST
    assert one.duty.seconds / (one.duty.free_at()) <= 0.01 + 1e-9
    assert 1.3 < frame_seconds(4) < 1.7 < frame_seconds(44) < 2.9
    assert Duty().free_at() < 0


@pytest.mark.parametrize("loss", [0.0, 0.5])
def test_the_state_is_the_servers_to_the_bit_and_nears_what_it_wants_whatever_is_lost(
    loss: float,
) -> None:
    app, dice = App(), random.Random(3)
    edge, state = device(app), DeviceState("ab")
    config = wire.Config(1, pb.Broadcast(hyperparameters=HYPER, head_kind=5).SerializeToString())
    wanted = np.random.default_rng(0).normal(size=COUNT).astype(np.float32)
    kept: Vector = wanted
    for round_ in range(1, 13):
        vector = np.zeros(0, np.float32) if round_ == 1 else wanted
        state.ask = Ask(f"m{round_}", wire.Down.TRAIN, 1, round_, vector, 5)
        for _ in range(200):
            heard = wire.unpack_up(edge.uplink(0.0))
            if dice.random() < loss:
                continue
            state.says(heard.seq, heard.config, 0.0)
            if isinstance(heard, wire.Said) and heard.round == round_:
                break
            frame = state.next_frame(config)
            assert frame is not None
            raw = wire.pack_down(frame)
            if dice.random() >= loss:
                edge.take(raw)
        else:
            raise AssertionError("it never answers")
        kept = state.state()
        assert len(app.trained) == round_, "a round is trained once"
        if round_ > 1:
            np.testing.assert_array_equal(app.trained[-1], kept)
    assert float(np.abs(kept - wanted).max()) < 1e-3 * float(np.abs(wanted).max())


class Quiet:
    """A broker that takes everything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *given: None


def test_an_evaluation_that_is_none_is_refused_and_the_next_one_counts() -> None:
    device, prefix = "00" * 8, int.from_bytes(BANK[:4], "big")

    def says(frame: wire.Announce | wire.Said) -> None:
        grid._heard(Uplink(device, 0, wire.pack_up(frame)))

    with server_identity(), LoraGrid("app", lambda heard, lost: Quiet()) as grid:  # type: ignore[arg-type,return-value]
        says(wire.Announce(0, 0, 1, prefix, 9, 60, 30, 10, 10, 7))
        asked = pb.ToClient(evaluate=pb.Broadcast(bank=prefix, task=1, round=1))
        message = Message(to_content(asked.SerializeToString()), node_id(device), "evaluate")
        (key,) = grid.push_messages([message])
        says(wire.Said(wire.Up.EVALUATION, 0, 0, 1, 1, body=b"\xff\xff\xff"))
        assert [one.reason for one in grid.take_refusals()] == ["malformed"]
        assert list(grid.pull_messages([key])) == []
        found = pb.Evaluation(examples=30, correct=20).SerializeToString()
        says(wire.Said(wire.Up.EVALUATION, 0, 0, 1, 1, body=found))
        (reply,) = grid.pull_messages([key])
        answer = pb.ToServer.FromString(from_content(reply) or b"")
        assert (answer.evaluation.examples, answer.evaluation.correct) == (30, 20)


def test_questions_that_nobody_answers_and_refusals_that_nobody_takes_do_not_add_up() -> None:
    device, prefix = "00" * 8, int.from_bytes(BANK[:4], "big")
    with server_identity(), LoraGrid("app", lambda heard, lost: Quiet()) as grid:  # type: ignore[arg-type,return-value]
        announce = wire.Announce(0, 0, 1, prefix, 9, 60, 30, 10, 10, 7)
        grid._heard(Uplink(device, 0, wire.pack_up(announce)))
        asked: list[list[str]] = []
        for round_ in range(1, 51):
            body = pb.ToClient(train=pb.Broadcast(bank=prefix, task=1, round=round_))
            content = to_content(body.SerializeToString())
            asked.append(list(grid.push_messages([Message(content, node_id(device), "train")])))
            hello = to_content(pb.ToClient(hello=pb.HelloRequest()).SerializeToString())
            grid.push_messages([Message(hello, node_id(device), "query.hello")])  # never pulled
        assert len(grid._pending) <= 4
        assert list(grid.pull_messages(asked[0])) == []
        (late,) = grid.pull_messages(asked[-2])  # another question took its place
        assert late.has_error()
        encoded = encode(np.linspace(-1, 1, COUNT, dtype=np.float32), 5)
        said = wire.Said(
            wire.Up.UPDATE, 0, 0, 1, 50, examples=60, bits=5, scale=encoded.scale, body=encoded.data
        )
        grid._heard(Uplink(device, 0, wire.pack_up(said)))
        (reply,) = grid.pull_messages(asked[-1])
        assert pb.ToServer.FromString(from_content(reply) or b"").update.examples == 60
        for _ in range(2000):
            grid._heard(Uplink(device, 0, b"\x00"))
        assert 0 < len(grid.take_refusals()) <= 256
        assert grid.take_refusals() == []
