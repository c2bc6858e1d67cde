"""Every message survives its bytes, an update fits its frame, and lies are refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protos import recast_v1_pb2 as pb
from recast_core import TemplateBank, TemplateGroup
from recast_core.wire.codec import CodecError
from recast_core.wire.messages import (
    Hyperparameters,
    RefusedError,
    from_broadcast,
    from_update,
    hyperparameters,
    snap,
    to_broadcast,
    to_update,
)

MESSAGES = list(pb.DESCRIPTOR.message_types_by_name)
FRAME = 51  # bytes of a LoRaWAN DR0 payload

SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=40),
    FieldDescriptor.TYPE_STRING: st.text(max_size=20),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_FLOAT: st.floats(allow_nan=False, width=32),
    # Enums of proto3 are open: a later version's reason must survive.
    FieldDescriptor.TYPE_ENUM: st.integers(0, 100),
}


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor) -> Message:
    values: dict[str, Any] = {}
    fields = list(descriptor.fields)
    if descriptor.oneofs:
        fields = [draw(st.sampled_from(fields))]
    for field in fields:
        strategy = (
            messages(field.message_type)
            if field.type == FieldDescriptor.TYPE_MESSAGE
            else SCALARS[field.type]
        )
        if field.is_repeated:
            values[field.name] = draw(st.lists(strategy, max_size=3))
        elif draw(st.booleans()) or descriptor.oneofs:
            values[field.name] = draw(strategy)
    return GetMessageClass(descriptor)(**values)


@pytest.mark.parametrize("name", MESSAGES)
@given(data=st.data())
def test_every_message_survives_its_bytes(name: str, data: st.DataObject) -> None:
    message = data.draw(messages(pb.DESCRIPTOR.message_types_by_name[name]))
    back = type(message).FromString(message.SerializeToString())
    assert back == message
    assert back.SerializeToString() == message.SerializeToString()


@given(st.binary(max_size=80), st.sampled_from([pb.ToClient, pb.ToServer]))
def test_any_bytes_parse_or_raise_decode_error(
    body: bytes, kind: type[pb.ToClient] | type[pb.ToServer]
) -> None:
    with suppress(DecodeError):
        kind.FromString(body)


def bank(count: int = 24, initial: float = 1.0, seed: int = 0) -> TemplateBank:
    generator = torch.Generator().manual_seed(seed)
    group = TemplateGroup("g", ("m",), "weight", (0,), torch.randn(count, 2, generator=generator))
    return TemplateBank((group,), (torch.full((count,), initial),))


BANK = bank()
numbers = st.floats(-1000, 1000, width=32)
vectors = arrays(np.float32, 24, elements=numbers)


@pytest.mark.parametrize(("count", "bits"), [(24, 8), (48, 5), (48, 4), (48, 1)])
@given(
    data=st.data(),
    task=st.integers(1, 127),
    round_=st.integers(1, 127),
    examples=st.integers(1, 2**14 - 1),
)
def test_an_update_fits_one_lorawan_frame(
    count: int, bits: int, data: st.DataObject, task: int, round_: int, examples: int
) -> None:
    offsets = data.draw(arrays(np.float32, count, elements=numbers))
    update = to_update(bank(count), task, round_, examples, offsets, bits)
    assert len(pb.ToServer(update=update).SerializeToString()) <= FRAME


@given(vectors, st.sampled_from([8, 5, 1, 16, 32]))
def test_an_update_brings_its_offsets_and_its_labels(vector: np.ndarray, bits: int) -> None:
    update = to_update(BANK, 3, 7, 11, vector, bits)
    assert (update.bank, update.task, update.round, update.examples) == (BANK.prefix, 3, 7, 11)
    back = from_update(BANK, update, bits)
    step = {32: 0.0, 16: 1.0, 1: 2000.0}.get(bits, float(np.abs(vector).max()) / 2 ** (bits - 2))
    # Below the smallest scale, a normal float32, a vector is zero.
    assert (np.abs(back - vector) <= step + 127 * np.finfo(np.float32).tiny).all()
    assert np.array_equal(from_update(BANK, pb.Update.FromString(update.SerializeToString()), bits),
                          back)  # fmt: skip


@given(
    arrays(np.float32, 24, elements=numbers), st.sampled_from([0.0, 1.0, 0.7, -3.1, 1e-3, 321.0])
)
def test_a_snapped_vector_arrives_as_it_is(vector: np.ndarray, initial: float) -> None:
    made = bank(initial=initial)
    once = snap(made, vector)
    assert np.array_equal(snap(made, once), once)
    assert np.array_equal(from_broadcast(made, to_broadcast(made, 1, 1, once)), once)
    np.testing.assert_allclose(once, vector, rtol=2.0**-10, atol=1.0)


@given(
    arrays(np.float32, 24, elements=numbers),
    st.sampled_from([0.0, 1.0, 0.7, -3.1, 1e-3, 321.0]),
    st.sampled_from([32, 8, 6, 4, 2, 1]),
)
def test_a_vector_snapped_at_another_width_arrives_as_it_is(
    vector: np.ndarray, initial: float, bits: int
) -> None:
    made = bank(initial=initial)
    once = snap(made, vector, bits)
    message = to_broadcast(made, 1, 1, once, None, bits)
    assert np.array_equal(from_broadcast(made, message), once)
    assert len(message.coefficients) in (0, -(-24 * bits // 8))
    assert message.bits in (0, bits)


def test_what_a_kept_head_adds_to_messages_has_the_bytes_that_the_contract_s_page_says() -> None:
    """docs/wire.md, "What a kept head adds"."""

    def down(**more: Any) -> int:
        body = pb.Broadcast(bank=1, task=2, round=1, head_kind=pb.HEAD_BACKBONE, **more)
        return len(pb.ToClient(train=body).SerializeToString())

    def up(**body: Any) -> int:
        return len(pb.ToServer(**body).SerializeToString())

    vector = np.linspace(-1, 1, 48, dtype=np.float32).astype("<f2").tobytes()
    candidate = pb.Candidate(task=1, coefficients=vector)
    added = [down(candidates=[candidate] * count) - down() for count in (1, 4)]
    assert added == [102, 409]
    objective = pb.Hyperparameters(objective=pb.OBJECTIVE_CROSS_ENTROPY)
    assert len(objective.SerializeToString()) == 2
    update = {"bank": 1, "task": 2, "round": 1, "examples": 30, "coefficients": b"x" * 24}
    assert up(update=pb.Update(**update, started=1)) - up(update=pb.Update(**update)) == 2
    told = {"bank": 1, "task": 2, "round": 6, "examples": 23, "correct": 13}
    beside = {"deployed_correct": 9, "local_head_correct": 12, "chosen_correct": 12}
    for count in range(4):
        some = dict(list(beside.items())[:count])
        longer = up(evaluation=pb.Evaluation(**told, **some))
        assert longer - up(evaluation=pb.Evaluation(**told)) == 2 * count
    assert len(pb.Task(class_hash=2**63).SerializeToString()) == 9


@pytest.mark.parametrize(
    "wrong",
    [{"bits": 16}, {"bits": 9}, {"scale": 1.0}, {"bits": 8}, {"coefficients": b"", "bits": 8}],
)
def test_a_broadcast_has_one_form(wrong: dict[str, Any]) -> None:
    message = to_broadcast(BANK, 1, 1, BANK.initial_vector.numpy() + 1)
    for name, value in wrong.items():
        setattr(message, name, value)
    with pytest.raises(RefusedError):
        from_broadcast(BANK, message)


def test_the_start_travels_as_no_bytes() -> None:
    start = BANK.initial_vector.numpy()
    message = to_broadcast(BANK, 1, 1, start)
    assert message.coefficients == b""
    assert np.array_equal(from_broadcast(BANK, message), start)


def test_a_received_start_is_no_view_of_the_banks() -> None:
    received = from_broadcast(BANK, to_broadcast(BANK, 1, 1, BANK.initial_vector.numpy()))
    received += 1
    assert (BANK.initial_vector == 1).all()


@given(
    st.builds(
        Hyperparameters,
        epochs=st.integers(1, 1000),
        batch=st.integers(1, 10**6),
        learning_rate=st.floats(2.0**-20, 10, width=32),
        bits=st.sampled_from([32, 16, 8, 5, 1]),
        seed=st.integers(0, 2**32 - 1),
        stochastic=st.booleans(),
        error_feedback=st.booleans(),
    )
)
def test_hyperparameters_arrive_as_they_left(hyper: Hyperparameters) -> None:
    message = to_broadcast(BANK, 1, 1, BANK.initial_vector.numpy(), hyper)
    assert hyperparameters(pb.Broadcast.FromString(message.SerializeToString())) == hyper


def good(bits: int = 8) -> pb.Update:
    return to_update(BANK, 1, 1, 10, np.linspace(-1, 1, 24, dtype=np.float32), bits)


def changed(bits: int = 8, **values: Any) -> pb.Update:
    update = good(bits)
    for name, value in values.items():
        setattr(update, name, value)
    return update


@pytest.mark.parametrize(
    ("update", "bits", "reason"),
    [
        (changed(bank=BANK.prefix ^ 1), 8, "wrong-bank"),
        (changed(coefficients=good().coefficients[:-1]), 8, "wrong-length"),
        (changed(coefficients=good().coefficients + b"\0"), 8, "wrong-length"),
        (changed(coefficients=b""), 8, "wrong-length"),
        (good(16), 8, "wrong-length"),
        (changed(scale=float("nan")), 8, "not-finite"),
        (changed(scale=float("inf")), 8, "not-finite"),
        (changed(32, coefficients=np.full(24, np.nan, "<f4").tobytes()), 32, "not-finite"),
        (changed(16, coefficients=np.full(24, np.inf, "<f2").tobytes()), 16, "not-finite"),
        (changed(examples=0), 8, "no-examples"),
    ],
)
def test_an_update_that_is_wrong_is_refused_for_the_right_reason(
    update: pb.Update, bits: int, reason: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        from_update(BANK, update, bits)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.Broadcast(bank=BANK.prefix ^ 1), "wrong-bank"),
        (pb.Broadcast(bank=BANK.prefix, coefficients=b"abc"), "wrong-length"),
        (pb.Broadcast(bank=BANK.prefix, coefficients=b"\x00\x7e" * 24), "not-finite"),
    ],
)
def test_a_broadcast_that_is_wrong_is_refused_for_the_right_reason(
    message: pb.Broadcast, reason: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        from_broadcast(BANK, message)
    assert caught.value.reason == reason


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_not_sent(wrong: float) -> None:
    vector = np.full(24, wrong, np.float32)
    with pytest.raises(RefusedError) as caught:
        to_broadcast(BANK, 1, 1, vector)
    assert caught.value.reason == "not-finite"
    with pytest.raises(CodecError):
        to_update(BANK, 1, 1, 10, vector, 8)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"epochs": 2**32 - 1}, {"batch": 0}, {"bits": 9}, {"bits": 0}]
    + [{"learning_rate": value} for value in (0.0, -1.0, float("nan"), float("inf"))],
)
def test_hyperparameters_that_cannot_train_are_refused(wrong: dict[str, Any]) -> None:
    message = to_broadcast(BANK, 1, 1, BANK.initial_vector.numpy(), Hyperparameters())
    for name, value in wrong.items():
        setattr(message.hyperparameters, name, value)
    with pytest.raises(RefusedError) as caught:
        hyperparameters(message)
    assert caught.value.reason == "malformed"


def test_a_broadcast_without_hyperparameters_cannot_be_trained_from() -> None:
    with pytest.raises(RefusedError):
        hyperparameters(to_broadcast(BANK, 1, 1, BANK.initial_vector.numpy()))
