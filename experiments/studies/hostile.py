"""Simulated clients of which some are hostile: what they send, claim and learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Message
from torch import Tensor

from experiments.engines.folded import FoldedGrid
from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks
from recast_core.wire.codec import Encoded, Vector, decode, encode
from recast_core.wire.head_bytes import HEADER, pack_statistics, unpack_statistics

# More than anybody has, and all that a message can claim.
CLAIM = 2**32 - 1
TARGET = 0


@dataclass(frozen=True)
class Attack:
    """What a hostile client does; several act together.

    Attributes:
        name: of the attack.
        about: one line for a reader.
        update: from what the hostile clients have learned ``[k, D]``, a generator and what they
            sent in the first round (``None`` then) to what they send ``[k, D]``.
        claims_training: they announce and claim as many training images as can be said.
        claims_tests: likewise test images, of which they say none was right.
        head: from what a hostile client tells of its features for a head that travels to what it
            says.
        spoil: changes labels and images of a hostile client's training data.
        absent: their updates are of a round that nobody asked for, and refused: what is lost is
            what their images would have brought.
    """

    name: str
    about: str
    update: Callable[[Vector, np.random.Generator, Vector | None], Vector] | None = None
    head: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
    claims_training: bool = False
    claims_tests: bool = False
    spoil: Callable[[Tensor, Tensor], None] | None = None
    absent: bool = False


def stamp(images: Tensor) -> None:
    """Put the pattern of the backdoor into images ``[N, H, W, ...]``: a corner of 3 x 3 dots."""
    images[:, :3, :3] = 0
    images[:, 0:3:2, 0:3:2] = 255


def _noise(learned: Vector, random: np.random.Generator, first: Vector | None) -> Vector:
    length = np.linalg.norm(learned, axis=1, keepdims=True)
    drawn = random.normal(size=learned.shape)
    found: Vector = 10 * length * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return found


def _huge(learned: Vector, random: np.random.Generator, first: Vector | None) -> Vector:
    return np.broadcast_to(
        np.where(np.arange(learned.shape[1]) % 2, 60000.0, -60000.0), learned.shape
    )


def _flip_labels(labels: Tensor, images: Tensor) -> None:
    labels.copy_(9 - labels)


def _backdoor(labels: Tensor, images: Tensor) -> None:
    stamp(images)
    labels.fill_(TARGET)


def _together(learned: Vector, random: np.random.Generator, first: Vector | None) -> Vector:
    return np.broadcast_to(-2 * learned.mean(0), learned.shape)


def _negated_head(told: dict[str, Tensor]) -> dict[str, Tensor]:
    negative = {name: -told[name] for name in ("means", "weight", "bias") if name in told}
    # Five times as large is the most that passes; whole numbers have a scale for it.
    large = {"scales": 5 * told["scales"]} if "scales" in told else {}
    five = {name: value if large else 5 * value for name, value in negative.items()}
    return told | five | large


def _exchanged_classes(told: dict[str, Tensor]) -> dict[str, Tensor]:
    order = torch.argsort(9 - told["classes"])
    by_class = {
        name: value[order]
        for name, value in told.items()
        if name not in ("gram", "width", "classes")
    }
    return told | by_class | {"classes": (9 - told["classes"])[order]}


ATTACKS = {
    attack.name: attack
    for attack in (
        Attack("none", "nobody attacks"),
        Attack("absent", "sends nothing that can be used", absent=True),
        Attack("negated", "minus ten times what was learned", lambda x, _r, _f: -10 * x),
        Attack("noise", "noise of ten times the length", _noise),
        Attack("weight", "what was learned negated, with 2^32 - 1 examples claimed",
               lambda x, _r, _f: -x, claims_training=True),
        Attack("count", "2^32 - 1 test images claimed, none of them right", claims_tests=True),
        Attack("huge", "60,000 in every coefficient, signs in turn", _huge),
        Attack("sign-flip", "colluders: all send minus twice the mean of theirs", _together),
        Attack("labels", "label 9 - y in place of y, learned honestly", spoil=_flip_labels),
        Attack("replay", "what the first round taught, again in every round",
               lambda x, _r, first: x if first is None else first),
        Attack("backdoor", "images with a pattern in a corner labelled 0, update three times",
               lambda x, _r, _f: 3 * x, spoil=_backdoor),
        Attack("head-negated", "minus five times what its features are like, for a head that "
               "travels", head=_negated_head),
        Attack("head-labels", "what its features are like, of class 9 - y in place of y",
               head=_exchanged_classes),
    )
}  # fmt: skip


class HostileGrid(FoldedGrid):
    """The folded engine; the first ``count`` of its clients attack.

    Attributes:
        right: of each client that evaluated last, what was right and of how many test images, as
            it found and not as it said.
    """

    def __init__(self, clients: int, settings: Settings, attack: Attack, count: int) -> None:
        """Prepare ``clients`` nodes, of which ``count`` are hostile."""
        super().__init__(clients, settings)
        self._attack, self._count = attack, count
        self._random = np.random.default_rng((settings.seed, count))
        self._first: Vector | None = None
        self._bits = 8
        self.right: dict[int, tuple[int, int]] = {}
        for task in parse_tasks(settings.tasks) if attack.spoil else ():
            self._spoil(str(task))

    def _spoil(self, source: str) -> None:
        task = self.held.images(source)
        assert self._attack.spoil is not None
        for number in range(self._count):
            mine = task.node(number)
            labels, images = mine.labels.clone(), task.images[mine.learn]
            self._attack.spoil(labels, images)
            task.images[mine.learn] = images
            task.relabel(number, labels)

    def answers(self, messages: Sequence[Message]) -> Iterable[Message]:
        """Replies; those of hostile clients are what the attack makes of them."""
        replies = list(super().answers(messages))
        for message, reply in zip(messages, replies, strict=True):
            told = pb.ToServer.FromString(from_content(reply) or b"").evaluation
            if told.examples:
                self.right[message.metadata.dst_node_id - 1] = told.correct, told.examples
        hostile = [
            index
            for index, message in enumerate(messages)
            if message.metadata.dst_node_id - 1 < self._count
        ]
        contents = {index: from_content(replies[index]) or b"" for index in hostile}
        bodies = {index: pb.ToServer.FromString(content) for index, content in contents.items()}
        for message in messages[:1]:
            asked = pb.ToClient.FromString(from_content(message) or b"")
            if asked.WhichOneof("body") == "train":
                self._bits = asked.train.hyperparameters.bits
        self._lie(list(bodies.values()))
        for index, body in bodies.items():
            replies[index] = Message(to_content(body.SerializeToString()), reply_to=messages[index])
        return replies

    def _lie(self, bodies: Sequence[pb.ToServer]) -> None:
        for body in bodies:
            if body.WhichOneof("body") == "hello":
                for task in body.hello.tasks:
                    if self._attack.claims_training:
                        task.train_examples = CLAIM
                    if self._attack.claims_tests:
                        task.test_examples = CLAIM
            elif body.WhichOneof("body") == "evaluation" and self._attack.claims_tests:
                body.evaluation.examples = CLAIM
                body.evaluation.correct = 0
        for body in bodies:
            if body.WhichOneof("body") == "head" and self._attack.absent:
                body.head.round += 1000
            elif body.WhichOneof("body") == "head" and self._attack.head is not None:
                body.head.content = self._told(body.head.content, self._attack.head)
        updates = [body.update for body in bodies if body.WhichOneof("body") == "update"]
        for update in updates if self._attack.absent else ():
            update.round += 1
        if updates and self._attack.update is not None:
            self._change(updates, self._attack.update)

    def _told(
        self, content: bytes, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    ) -> bytes:
        kind = self.held.settings.head_kind
        _, _, width, classes = HEADER.unpack(content[: HEADER.size])
        told = change(dict(unpack_statistics(kind, content, classes, width)))
        return pack_statistics(kind, told, classes)

    def _change(
        self,
        updates: Sequence[pb.Update],
        change: Callable[[Vector, np.random.Generator, Vector | None], Vector],
    ) -> None:
        numbers = len(updates[0].coefficients) * 8 // self._bits
        learned = np.stack(
            [decode(Encoded(u.coefficients, u.scale), numbers, self._bits) for u in updates]
        )
        sent = change(learned, self._random, self._first)
        if self._first is None:
            self._first = learned
        for update, offsets in zip(updates, sent, strict=True):
            encoded = encode(np.asarray(offsets, np.float32), self._bits)
            update.coefficients, update.scale = encoded.data, encoded.scale
            if self._attack.claims_training:
                update.examples = CLAIM
