"""What simulated clients hold: each thing once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch

from client.bank_cache import verified
from client.data import parse_task
from client.learners import attached_to, learner_with, preprocess_of
from experiments.engines.folded.data import NodeRows, TaskImages, load_task
from experiments.engines.folded.memory import keep_freed
from experiments.engines.folded.models import FoldedBank, FoldedMethod, FoldedModel, FoldedOptions
from protos import recast_v1_pb2 as pb
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.secure.members import FEWEST
from recast_core.settings import Settings
from recast_core.shifts.drift import at_round
from recast_core.start import Start


class Held:
    """Images, banks and the model, each once however many nodes have it.

    Attributes:
        settings: of the run.
        clients: how many there are.
        tasks: images by the task's source.
    """

    def __init__(
        self,
        clients: int,
        settings: Settings,
        options: FoldedOptions,
        elsewhere: Callable[[bytes, bytes, str], None] | None = None,
    ) -> None:
        """Hold nothing yet.

        Args:
            clients: how many there are.
            settings: of the run.
            options: how models train.
            elsewhere: where others do the work: is told the identity of each start that is kept,
                and its bank's bytes, or else its method.
        """
        self.settings = settings
        self._elsewhere = elsewhere
        self.tasks: dict[str, TaskImages] = {}
        self.clients = clients
        self._options = options
        # One thread for each client, as on the other engines: its last bits depend on that.
        self._workers = torch.get_num_threads()
        keep_freed()
        self._banks: dict[bytes, TemplateBank] = {}
        self._methods: dict[bytes, str] = {}
        self._received: tuple[bytes, bytes] | None = None
        self._model: FoldedModel | None = None

    def receive(self, content: bytes, sha256: bytes) -> None:
        """Keep a bank that was sent; the same bytes are verified once.

        Raises:
            RecastError: they are no bank, or another bank.
        """
        if self._received != (content, sha256):
            self._banks[sha256] = verified(content, sha256)
            self._received = content, sha256
            if self._elsewhere is not None:
                self._elsewhere(sha256, content, "")

    def keep(self, start: Start, method: str) -> None:
        """Keep what was made here: a method's start, or a bank if ``method`` is ""."""
        if method:
            self.learn_by(start.sha256, method)
        elif start.sha256 not in self._banks:
            self.receive(start.to_bytes(), start.sha256)

    def learn_by(self, sha256: bytes, method: str) -> None:
        """Know the method whose start has this identity."""
        if self._methods.get(sha256) != method and self._elsewhere is not None:
            self._elsewhere(sha256, b"", method)
        self._methods[sha256] = method

    def hold(self, images: TaskImages) -> None:
        """Hold a task's images, in place of what they were in other rounds."""
        name = images.source.partition("=")[0]
        for other in [known for known in self.tasks if known.partition("=")[0] == name]:
            del self.tasks[other]
        self.tasks[images.source] = images

    def images(self, source: str) -> TaskImages:
        """The images of a task, divided among all nodes.

        Raises:
            RecastError: they cannot be read or divided.
        """
        if source not in self.tasks:
            size = preprocess_of(self.settings.backbone).size
            self.hold(load_task(source, size, self.clients, self.settings))
        return self.tasks[source]

    def model(self, sha256: bytes) -> FoldedModel:
        """The model with the bank or method of this identity; the last one is kept.

        Raises:
            RecastError: it is for another backbone.
        """
        if self._model is None or self._model.start.sha256 != sha256:
            self._model = self._make(sha256)
        return self._model

    def prepare(self) -> None:
        """Make the model, and the images ready, that the first round will ask for.

        Only where it is clear which: one bank, and one task whose images do not drift and which all
        clients train.
        """
        settings = self.settings
        if self._model is not None or self._elsewhere is not None or self._methods:
            return
        if len(self._banks) != 1 or len(self.tasks) != 1 or settings.clients_per_round:
            return
        (sha256,), ((source, images),) = self._banks, self.tasks.items()
        if _source_in(source, 1, settings.rounds) != source:
            return
        with suppress(RecastError):  # the round will say so
            self.model(sha256).prepare(images)

    def _make(self, sha256: bytes) -> FoldedModel:
        settings = self.settings
        if self._elsewhere is not None:  # only its start and its head are looked at here
            settings = replace(settings, device="cpu")
        if sha256 in self._methods:
            learner = learner_with(settings, self._methods[sha256])
            return FoldedMethod(learner, self._options, self._workers)
        split, preprocess = attached_to(settings, self._banks[sha256])
        return FoldedBank(split, preprocess, self._options, self._workers)


_NO_TASKS: Mapping[int, pb.Task] = {}


@lru_cache(maxsize=64)
def _with(banks: frozenset[bytes], sha256: bytes) -> frozenset[bytes]:
    """The same set for all nodes that have the same banks."""
    return banks | {sha256}


@lru_cache(maxsize=64)
def _of_prefix(banks: frozenset[bytes], prefix: int) -> bytes:
    """The bank whose identity starts so, of several the first; empty where there is none."""
    wanted = prefix.to_bytes(4, "big")
    return min((sha256 for sha256 in banks if sha256.startswith(wanted)), default=b"")


@lru_cache(maxsize=64)
def _source_in(source: str, round_: int, rounds: int) -> str:
    """What a task's images are in a round."""
    return str(at_round(parse_task(source), round_, rounds))


@dataclass(slots=True)
class HeldStore:
    """A `client.residuals.Store` in memory."""

    content: dict[str, bytes] = field(default_factory=dict)

    def read(self, name: str) -> bytes:
        """See ``Store``."""
        return self.content.get(name, b"")

    def write(self, name: str, content: bytes, *, private: bool = False) -> None:
        """See ``Store``."""
        self.content[name] = content


class SimulatedNode:
    """One simulated client: `client.holdings.Holdings` in memory, as little as it can be.

    Attributes:
        number: of its partition.
        held: what it shares with the others.
        banks: the identities of the banks that it has; shared by nodes that have the same.
        tasks: those that it was told of, by number; shared by nodes that were told the same.
    """

    __slots__ = ("_notes", "_residuals", "banks", "held", "number", "tasks")

    def __init__(self, number: int, held: Held) -> None:
        """A node that was told nothing yet."""
        self.number, self.held = number, held
        self.banks: frozenset[bytes] = frozenset()
        self.tasks: Mapping[int, pb.Task] = _NO_TASKS
        self._residuals: HeldStore | None = None
        self._notes: dict[str, bool] | None = None

    @property
    def residuals(self) -> HeldStore:
        """See ``Holdings``: what its updates have not said yet."""
        if self._residuals is None:
            self._residuals = HeldStore()
        return self._residuals

    @property
    def notes(self) -> dict[str, bool]:
        """See ``Holdings``: what it found out about its own images."""
        if self._notes is None:
            self._notes = {}
        return self._notes

    @property
    def simulated(self) -> bool:
        """See ``Holdings``."""
        return True

    @property
    def identity(self) -> None:
        """See ``Holdings``: simulated clients have no certificates."""

    @property
    def least_sum(self) -> int:
        """See ``Holdings``."""
        return FEWEST

    @property
    def settings(self) -> Settings:
        """See ``Holdings``."""
        return self.held.settings

    def remember(self, tasks: Mapping[int, pb.Task]) -> None:
        """See ``Holdings``."""
        self.tasks = tasks

    def holds(self, sha256: bytes) -> bool:
        """See ``Holdings``."""
        return sha256 in self.banks

    def store(self, content: bytes, sha256: bytes) -> None:
        """See ``Holdings``."""
        self.held.receive(content, sha256)
        self.banks = _with(self.banks, sha256)

    def keep(self, start: Start, method: str) -> None:
        """See ``Holdings``."""
        self.held.keep(start, method)
        self.banks = _with(self.banks, start.sha256)

    def model(self, prefix: int) -> FoldedModel | None:
        """See ``Holdings``."""
        found = _of_prefix(self.banks, prefix)
        return self.held.model(found) if found else None

    def data(self, task: pb.Task, round_: int = 0) -> NodeRows | None:
        """See ``Holdings``."""
        if not task.source:
            return None
        source = _source_in(task.source, round_, self.settings.rounds)
        mine = self.held.images(source).node(self.number)
        return mine.in_task_ids(tuple(task.classes))

    def lacks(self, task: pb.Task) -> str:
        """See ``Holdings``."""
        return f"no training images in share {self.number} of {self.held.clients}"
