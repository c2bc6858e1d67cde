"""An earlier task's head that later tasks keep: which it is, and which clients have it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from protos import recast_v1_pb2 as pb
from recast_core.classes import Names
from recast_core.wire.codec import Vector
from recast_core.wire.kept_head import kept_of
from server.exchange.leniency import Leniency


@dataclass
class EarlierHead:
    """Whose head later tasks keep, and since when there is one.

    A client that was sent it, with the evaluation of the task that learned it or before it first
    trained by it, keeps it, and is from then on told its identity alone. One that does not answer
    what needs it may have lost it, and is sent it with the next such message; a few times, and then
    seldom, however often it says so.

    Attributes:
        name: of the task.
        number: of the task in this run; 0 where it was learned in another.
        vector: float32 ``[D]``, the coefficients that the head was learned with; ``None`` where
            they are the task's of this run.
        classes: what its outputs mean; none where that is not known, or is the task's of this run.
        head: what later tasks keep; ``None`` until it is learned.
        rounds: that the task has in this run; a head of before its last round is not kept.
        sendings: how often a node may be sent it.
    """

    name: str
    number: int = 0
    vector: Vector | None = None
    classes: Names = ()
    head: pb.KeptHead | None = None
    rounds: int = 0
    sendings: Leniency = field(default_factory=lambda: Leniency(times=4, seconds=600.0))
    _holders: set[int] = field(default_factory=set)

    def is_of(self, evaluation: pb.Broadcast) -> bool:
        """Whether an evaluation is that of the task after its last round."""
        return self.number == evaluation.task and self.rounds <= evaluation.round

    def learned(self, evaluation: pb.Broadcast) -> pb.KeptHead:
        """The head in the evaluation of the task that learned it; the first one stays."""
        if self.head is None:
            self.head = kept_of(evaluation)
        return self.head

    def told(self, node: int) -> pb.KeptHead:
        """What a message that needs the head tells a node of it."""
        assert self.head is not None
        if node in self._holders or not self.sendings.grant(node):
            return pb.KeptHead(id=self.head.id)
        return self.head

    def answered(self, asked: Iterable[int], by: Iterable[int]) -> None:
        """Of the nodes that were asked what needs the head, or sent it, those in ``by`` have it."""
        self._holders -= set(asked)
        self._holders |= set(by)
