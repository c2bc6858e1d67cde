"""What a client keeps to itself where it adds noise of its own: counts have none."""

from __future__ import annotations

from client.holdings import D, Holdings, M
from protos import recast_v1_pb2 as pb
from recast_core.privacy.noise import Noise, seeded_noise
from recast_core.wire.gaussian import has_noise
from recast_core.wire.messages import Hyperparameters, RefusedError


def is_private(me: Holdings[M, D]) -> bool:
    """Whether the run's settings promise that this client's own noise hides it."""
    return bool(me.settings.dp_epsilon) and me.settings.dp == "local"


def is_discreet(me: Holdings[M, D]) -> bool:
    """Whether counts stay here; a simulated client has nobody to hide from."""
    return is_private(me) and not me.simulated


def hide_counts(told: pb.TaskData) -> None:
    """Say of a task that there is something to learn from, and nothing of how much."""
    told.train_examples, told.test_examples = min(told.train_examples, 1), 0
    told.local_classes = min(told.local_classes, 2)


def own_noise(me: Holdings[M, D], seed: int) -> Noise | None:
    """What hides this client: ``None`` for what nobody can repeat, else by ``seed``."""
    return seeded_noise(seed) if me.simulated else None


def check_promise(me: Holdings[M, D], hyper: Hyperparameters) -> None:
    """Refuse to answer without the noise that the run's settings promise, or beside it.

    Raises:
        RefusedError: ``malformed``.
    """
    if is_private(me) and not has_noise(hyper.transforms):
        raise RefusedError("malformed", "a round without the noise that --dp local promises")
    if hyper.report_loss and me.settings.dp_epsilon:
        raise RefusedError("malformed", "a loss, which --dp-epsilon has no noise for")
