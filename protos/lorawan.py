"""Frames of at most 51 bytes for LoRaWAN: the messages of a round without what both ends know.

A device's state is what it has of a task's coefficients; ``seq`` numbers the states that the server
has made for it (1 to 255, then 1 again; 0: the bank's start). A broadcast is the difference to the
state ``base``, so that one which was lost is made good from what the device says it has.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

MOST = 51
PORT = 10
_WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8)


class FrameError(ValueError):
    """Bytes that are no frame."""


class Up(IntEnum):
    """Kinds of frames of a device."""

    ANNOUNCE = 1
    POLL = 2
    UPDATE = 3
    EVALUATION = 4
    REFUSAL = 5


class Down(IntEnum):
    """Kinds of frames to a device."""

    CONFIG = 1
    TRAIN = 2
    EVALUATE = 8


@dataclass(frozen=True)
class Announce:
    """What a device has: bank, and images of a task."""

    seq: int
    config: int
    task: int
    bank: int
    client: int
    train: int
    test: int
    classes: int
    local_classes: int
    class_hash: int
    KIND: ClassVar[Up] = Up.ANNOUNCE


@dataclass(frozen=True)
class Said:
    """Any other frame of a device.

    Attributes:
        kind: which.
        seq: of the state that the device has.
        config: that it has; 0: none.
        task: that this is about.
        round: that this answers; 0 in a poll.
        examples: of an update.
        bits: of an update's numbers, 1 to 8.
        scale: of them.
        body: an update's numbers, an evaluation's message, or a refusal's reason.
    """

    kind: Up
    seq: int
    config: int
    task: int
    round: int = 0
    examples: int = 0
    bits: int = 1
    scale: float = 0.0
    body: bytes = b""


@dataclass(frozen=True)
class Config:
    """What stays the same from round to round: a Broadcast without coefficients."""

    number: int
    body: bytes


@dataclass(frozen=True)
class Told:
    """Coefficients: the difference to the state ``base``, which makes the state ``seq``.

    ``head`` is the kind of head to evaluate with, 0 to 7.
    """

    kind: Down
    config: int
    task: int
    round: int
    base: int
    seq: int
    bits: int
    scale: float
    body: bytes
    head: int = 0


_ANNOUNCE = struct.Struct(">BBBBIIHHHHQ")
_SAID = struct.Struct(">BBBB")
_ANSWER = struct.Struct(">H")
_UPDATE = struct.Struct(">If")
_TOLD = struct.Struct(">BBBHBBf")
UPDATE_HEADER = _SAID.size + _ANSWER.size + _UPDATE.size


def pack_up(frame: Announce | Said) -> bytes:
    """The bytes of a device's frame.

    Raises:
        FrameError: more than a frame takes.
    """
    if isinstance(frame, Announce):
        values = (
            frame.KIND << 4, frame.seq, frame.config, frame.task, frame.bank, frame.client,
            *(min(n, 0xFFFF) for n in (frame.train, frame.test, frame.classes)),
            min(frame.local_classes, 0xFFFF), frame.class_hash,
        )  # fmt: skip
        return _ANNOUNCE.pack(*values)
    head = _SAID.pack(frame.kind << 4 | frame.bits - 1, frame.seq, frame.config, frame.task)
    if frame.kind == Up.POLL:
        return head
    head += _ANSWER.pack(frame.round)
    if frame.kind == Up.UPDATE:
        head += _UPDATE.pack(frame.examples, frame.scale)
    return _fitting(head + frame.body)


def unpack_up(raw: bytes) -> Announce | Said:
    """A device's frame.

    Raises:
        FrameError: the bytes are none.
    """
    try:
        if raw[:1] == bytes((Up.ANNOUNCE << 4,)):
            return Announce(*_ANNOUNCE.unpack(raw)[1:])
        first, seq, config, task = _SAID.unpack_from(raw)
        kind, bits = Up(first >> 4), (first & 0x0F) + 1
        if kind == Up.POLL:
            return Said(kind, seq, config, task)
        (round_,) = _ANSWER.unpack_from(raw, _SAID.size)
        rest = raw[_SAID.size + _ANSWER.size :]
        if kind == Up.UPDATE:
            examples, scale = _UPDATE.unpack_from(rest)
            body = rest[_UPDATE.size :]
            return Said(kind, seq, config, task, round_, examples, _width(bits), scale, body)
        return Said(kind, seq, config, task, round_, body=rest)
    except (struct.error, ValueError) as error:
        raise FrameError(f"{len(raw)} bytes that are no frame ({error})") from error


def pack_down(frame: Config | Told) -> bytes:
    """The bytes of a frame to a device.

    Raises:
        FrameError: more than a frame takes.
    """
    if isinstance(frame, Config):
        return _fitting(bytes((Down.CONFIG << 4, frame.number)) + frame.body)
    head = _TOLD.pack(
        (frame.kind | frame.head) << 4 | frame.bits - 1, frame.config, frame.task, frame.round,
        frame.base, frame.seq, frame.scale,
    )  # fmt: skip
    return _fitting(head + frame.body)


def unpack_down(raw: bytes) -> Config | Told:
    """A frame to a device.

    Raises:
        FrameError: the bytes are none.
    """
    try:
        code, bits = raw[0] >> 4, (raw[0] & 0x0F) + 1
        kind = Down.EVALUATE if code >= Down.EVALUATE else Down(code)
        head = code - kind
        if kind == Down.CONFIG:
            return Config(raw[1], raw[2:])
        _, config, task, round_, base, seq, scale = _TOLD.unpack_from(raw)
        return Told(
            kind, config, task, round_, base, seq, _width(bits), scale, raw[_TOLD.size :], head
        )
    except (struct.error, ValueError, IndexError) as error:
        raise FrameError(f"{len(raw)} bytes that are no frame ({error})") from error


def _width(bits: int) -> int:
    if bits not in _WIDTHS:
        raise FrameError(f"numbers of {bits} bits")
    return bits


def _fitting(raw: bytes) -> bytes:
    if len(raw) > MOST:
        raise FrameError(f"{len(raw)} bytes, a frame carries {MOST}")
    return raw
