"""A grid around another whose clients are away, lose answers, and are late."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from flwr.app import Error, Message
from google.protobuf.message import DecodeError

from experiments.engines.fleet import Fleet
from experiments.engines.local import LocalGrid
from protos import recast_v1_pb2 as pb
from protos.content import from_content
from recast_core.start import Start
from server.exchange.observer import LOST

_CODES = {reason: code for code, reason in LOST.items()}


class FleetGrid(LocalGrid):
    """Only messages that train are affected: greeting, bank and evaluation are reliable.

    Attributes:
        lost: answers by reason.
        round_seconds: simulated seconds by task and round.
        airtime: seconds on air upwards, by task and client.
    """

    def __init__(self, inner: LocalGrid, fleet: Fleet, seed: int, epochs: int) -> None:
        """Wrap ``inner``; a client trains ``epochs`` times on each of its images."""
        super().__init__(len(list(inner.get_node_ids())), lambda: None)
        self._inner, self._fleet, self._seed, self._epochs = inner, fleet, seed, epochs
        self.lost: Counter[str] = Counter()
        # A round that nobody answered is asked again, and chance has another say.
        self._attempts: Counter[tuple[str, int, int]] = Counter()
        self.round_seconds: dict[tuple[str, int], float] = {}
        self.airtime: dict[tuple[str, int], float] = defaultdict(float)

    def hold(self, start: Start, numbers: Iterable[int]) -> None:
        """See ``LocalGrid``."""
        self._inner.hold(start, numbers)

    def answers(self, messages: Sequence[Message]) -> Iterable[Message]:
        """The inner grid's replies, or an error where one is lost."""
        for message in messages:
            if message.metadata.message_type == "train":
                self._attempts[_about(message)] += 1
        away = [self._away(message) for message in messages]
        present = [message for message, gone in zip(messages, away, strict=True) if not gone]
        replies = iter(self._inner.answers(present))
        for message, gone in zip(messages, away, strict=True):
            if gone:
                yield self._lose(message, "away")
            else:
                yield self._after_training(message, next(replies))

    def report(self) -> dict[str, Any]:
        """What happened, as JSON values; seconds are simulated."""
        tasks: dict[str, dict[str, Any]] = {}
        for (task, round_), seconds in sorted(self.round_seconds.items()):
            entry = tasks.setdefault(task, {"round_seconds": {}, "airtime": {}})
            entry["round_seconds"][str(round_)] = seconds
        for (task, client), seconds in sorted(self.airtime.items()):
            tasks[task]["airtime"][str(client)] = seconds
        return {"settings": asdict(self._fleet), "lost": dict(self.lost), "tasks": tasks}

    def _away(self, message: Message) -> bool:
        task, round_, client = _about(message)
        trains = message.metadata.message_type == "train"
        return trains and self._fleet.away(
            self._seed, task, round_, client, self._attempts[_about(message)] - 1
        )

    def _after_training(self, message: Message, reply: Message) -> Message:
        """The reply, or what is left of it; only updates are ever lost or late."""
        body = None if reply.has_error() else from_content(reply)
        examples = _examples(body)
        if body is None or examples is None:
            return reply
        task, round_, client = _about(message)
        images = self._epochs * examples
        attempt = self._attempts[task, round_, client] - 1
        fate = self._fleet.fate(self._seed, task, round_, client, images, len(body), attempt)
        if self._fleet.link:
            self.airtime[task, client] += self._fleet.link.seconds_on_air(len(body))
        if fate != "answers":
            return self._lose(message, fate)
        self._passed(task, round_, self._fleet.seconds(self._seed, client, images, len(body)))
        return reply

    def _lose(self, message: Message, reason: str) -> Message:
        task, round_, _ = _about(message)
        self.lost[reason] += 1
        self._passed(task, round_, self._fleet.round_limit)
        return Message(Error(code=_CODES[reason], reason="simulated fleet"), reply_to=message)

    def _passed(self, task: str, round_: int, seconds: float) -> None:
        """A round lasts until its last answer, or its limit where one is awaited in vain."""
        limit = self._fleet.round_limit
        until = min(seconds, limit) if limit else seconds
        key = task, round_
        self.round_seconds[key] = max(self.round_seconds.get(key, 0.0), until)


def _examples(body: bytes | None) -> int | None:
    """The images that an update says it learned from; ``None`` of anything else."""
    try:
        answer = pb.ToServer.FromString(body or b"")
    except DecodeError:
        return None
    return answer.update.examples if answer.WhichOneof("body") == "update" else None


def _about(message: Message) -> tuple[str, int, int]:
    task, _, round_ = message.metadata.group_id.rpartition("/")
    return task, int(round_ or 0), message.metadata.dst_node_id - 1
