"""What a client keeps to itself where it adds noise of its own: counts have none."""

from __future__ import annotations

from client.holdings import D, Holdings, M
from client.secure import RosterError
from protos import recast_v1_pb2 as pb
from recast_core.privacy.noise import Noise, Uniform, seeded_noise, seeded_uniform
from recast_core.wire.gaussian import has_noise
from recast_core.wire.messages import Hyperparameters, RefusedError


def is_private(me: Holdings[M, D]) -> bool:
    """Whether the run's settings promise that this client's own noise hides it."""
    return bool(me.settings.dp_epsilon) and me.settings.dp in ("local", "distributed")


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


def own_uniform(me: Holdings[M, D], seed: int) -> Uniform | None:
    """The same for noise that is added to integers."""
    return seeded_uniform(seed) if me.simulated else None


def check_promise(me: Holdings[M, D], broadcast: pb.Broadcast, hyper: Hyperparameters) -> None:
    """Refuse to answer without what the run's settings promise, or beside it.

    Raises:
        RosterError: an update is asked for openly, where this run hides them.
        RefusedError: ``malformed``, an update that is not clipped or has no noise.
    """
    settings, told = me.settings, broadcast.secure
    if settings.secure_aggregation and not broadcast.HasField("secure"):
        raise RosterError("roster", "an update was asked for openly, and this run hides them")
    if settings.secure_aggregation and (
        (settings.dp_epsilon and not (told.clips and told.alike))
        or (settings.clip != "auto" and not told.clips)
    ):
        raise RefusedError("malformed", "a hidden update without the clip that --clip promises")
    noisy = told.deviation > 0 if settings.dp == "distributed" else has_noise(hyper.transforms)
    if is_private(me) and not noisy:
        raise RefusedError(
            "malformed", f"a round without the noise that --dp {settings.dp} promises"
        )
    if hyper.report_loss and me.settings.dp_epsilon:
        raise RefusedError("malformed", "a loss, which --dp-epsilon has no noise for")
