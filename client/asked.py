"""A message of the server as a client reads it, and the answer of one that takes no part."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property

from protos import recast_v1_pb2 as pb
from recast_core.start import Start
from recast_core.wire.codec import Vector
from recast_core.wire.messages import (
    Hyperparameters,
    RefusedError,
    from_broadcast,
    hyperparameters,
)

logger = logging.getLogger("recast.client")


class Asked:
    """A message of the server, read once however many clients it went to."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._read: tuple[Start, Vector] | None = None
        self._by_lists: dict[tuple[tuple[int, int], ...], Mapping[int, pb.Task]] = {}

    @cached_property
    def request(self) -> pb.ToClient:
        """The message.

        Raises:
            DecodeError: bytes that are none of ours.
        """
        return pb.ToClient.FromString(self._content)

    @cached_property
    def tasks(self) -> dict[int, pb.Task]:
        """The tasks of a hello, by number."""
        return {task.id: task for task in self.request.hello.tasks}

    def tasks_in(self, lists: Mapping[int, int]) -> Mapping[int, pb.Task]:
        """The tasks of a hello as one remembers them whose class ids count in other lists.

        The same object for all clients that have the same lists.

        Args:
            lists: hashes of lists of class names, by the task's number.
        """
        if all(self.tasks[number].class_hash == own for number, own in lists.items()):
            return self.tasks
        key = tuple(lists.items())
        if key not in self._by_lists:
            made = {number: pb.Task() for number in self.tasks}
            for number, task in made.items():
                task.CopyFrom(self.tasks[number])
                task.class_hash = lists.get(number, task.class_hash)
            self._by_lists[key] = made
        return self._by_lists[key]

    @cached_property
    def broadcast(self) -> pb.Broadcast | None:
        """What a message that trains, evaluates or asks for a head is about."""
        kind = self.request.WhichOneof("body")
        found = getattr(self.request, kind) if kind in ("train", "head", "evaluate") else None
        return found if isinstance(found, pb.Broadcast) else None

    @cached_property
    def hyper(self) -> Hyperparameters:
        """What to train with.

        Raises:
            RefusedError: nothing can be trained with that.
        """
        return hyperparameters(self.request.train)

    def vector(self, start: Start) -> Vector:
        """The vector ``[D]`` that the broadcast stands for; do not write into it.

        Raises:
            RefusedError: as ``from_broadcast``.
        """
        if self._read is None or self._read[0] is not start:
            assert self.broadcast is not None
            self._read = start, from_broadcast(start, self.broadcast)
        return self._read[1]

    def candidates(self, start: Start) -> dict[int, Vector]:
        """Where else the task may start: vectors ``[D]`` by the task that each is of.

        Raises:
            RefusedError: as ``from_broadcast``.
        """
        assert self.broadcast is not None
        found = {}
        for one in self.broadcast.candidates:
            told = pb.Broadcast(bank=self.broadcast.bank, bits=self.broadcast.bits)
            told.scale, told.coefficients = one.scale, one.coefficients
            found[one.task] = from_broadcast(start, told)
        return found


class UnpreparedError(RefusedError):
    """A refusal with its code of the wire."""

    def __init__(self, code: pb.Refusal.Reason, detail: str) -> None:
        super().__init__(pb.Refusal.Reason.Name(code), detail)
        self.code = code


def refusal(
    reason: pb.Refusal.Reason,
    detail: str,
    broadcast: pb.Broadcast | None = None,
    told: str = "",
) -> pb.ToServer:
    """Why this client takes no part; the server is ``told`` something else where that is given."""
    logger.warning("%s", detail)
    message = pb.Refusal(reason=reason, detail=(told or detail)[:200])
    if broadcast is not None:
        message.task, message.round = broadcast.task, broadcast.round
    return pb.ToServer(refusal=message)
