"""What others hand to the registry, and get from it: rows without a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

Status = Literal["running", "finished", "interrupted", "failed"]
Direction = Literal["up", "down"]
Kind = Literal["bank", "coefficients", "head", "metrics", "control", "keys", "shares"]
Layer = Literal["payload", "message", "wire"]
Privacy = Literal["central", "local", "distributed"]
Sampling = Literal["all", "fixed", "poisson"]

# In place of a client's id, where a row is of several.
OTHERS = "others"


# Nobody changes one. That it were frozen would take four times as long to make, and a round of a
# thousand clients makes four thousand.
@dataclass(slots=True, unsafe_hash=True)
class LedgerRow:
    """Bytes that one client sent (``up``) or was sent (``down``).

    The layers measure the same traffic at three depths: never add them to each other.

    Attributes:
        task: the task's name, ``None`` for what belongs to no task (a bank, a greeting).
        round: from 1, 0 outside the rounds.
        client: Flower's node id.
        layer: ``payload`` what the method has to say, ``message`` the serialised message, ``wire``
            what a relay would count.
        messages: how many messages of several clients the row sums up; then ``client`` is
            ``OTHERS``.
        longest: of these, in bytes.
    """

    task: str | None
    round: int
    client: str
    direction: Direction
    kind: Kind
    layer: Layer
    bytes: int
    messages: int = 1
    longest: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A client, or its answer, that a round went on without.

    Attributes:
        task: the task's name, ``None`` where it is unknown.
        reason: a short stable code.
        detail: one line for a person.
        times: how many of several clients this stands for; then ``client`` is ``OTHERS``.
    """

    client: str
    task: str | None
    round: int
    reason: str
    detail: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Air:
    """Frames that a device sent (``up``) or was sent (``down``).

    Attributes:
        bytes: of payload.
        seconds: on the air.
    """

    client: str
    direction: Direction
    frames: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Loss:
    """A client's training loss of a round, and the images that it is of."""

    loss: float
    examples: int


@dataclass(frozen=True, eq=False)
class FinishedRound:
    """A round of one task, to be recorded.

    Attributes:
        task: its number.
        round: from 1, once for each task.
        coefficients: float32 ``[D]``, aggregated, finite.
        examples: that the clients trained on in this round.
        clients: whose updates were aggregated.
        seconds: that the round has taken; `Registry.record_seconds` adds its own record.
        accuracy: a fraction, ``None`` where none was measured.
        held_back: how much of a client's update counted, where that was not all of it.
        mix: the fleet's packed label mix, where clients have no labels.
        losses: by client, of those whose loss is known.
    """

    task: int
    round: int
    coefficients: Vector
    examples: int
    clients: int
    seconds: float
    accuracy: float | None = None
    held_back: Mapping[str, float] = field(default_factory=dict)
    mix: bytes = b""
    losses: Mapping[str, Loss] = field(default_factory=dict)


@dataclass(frozen=True)
class Spending:
    """What a round of one task may have told of any one client, to be recorded before it is seen.

    Attributes:
        task: its number.
        round: from 1; a round that was asked for again has several.
        kind: ``central``, ``local`` or ``distributed``.
        noise: standard deviation over what one client can move the noisy sum by.
        rate: the share of clients that were drawn.
        sampling: ``all``, ``fixed`` or ``poisson``.
        clip: length that an update could have.
        threshold: that the next clip follows from, in lengths that the learning rate gives.
        within: share of updates no longer than the clip, with noise; ``None`` where not asked.
        task_epsilon: of all rounds of the task so far.
        epsilon: of all rounds of the run so far.
        delta: at which.
        seeded: whether anybody who knows the seed can take the noise off again.
    """

    task: int
    round: int
    kind: Privacy
    noise: float
    rate: float
    sampling: Sampling
    clip: float
    threshold: float
    within: float | None
    task_epsilon: float
    epsilon: float
    delta: float
    seeded: bool


@dataclass(frozen=True)
class Measured:
    """An evaluation of one task, to be recorded.

    Attributes:
        task: its number.
        round: whose coefficients were evaluated, 0 for the bank's start.
        accuracy: a fraction.
        head_only_accuracy: of the same head on the backbone as it came, if measured.
        examples: held-out examples over all clients.
        clients: that evaluated.
        after_task: the number of the task learned last.
        baselines: fractions that methods reach which send nothing, by their names.
        median: of the clients' own accuracies, a fraction.
    """

    task: int
    round: int
    accuracy: float
    head_only_accuracy: float | None
    examples: int
    clients: int
    after_task: int
    baselines: Mapping[str, float] = field(default_factory=dict)
    median: float | None = None
