"""Whether the settings of a private run fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recast_core.errors import RecastError
from recast_core.heads import head_kind
from recast_core.setting_fields import Privacy, Updates
from recast_core.wire.gaussian import NAME

if TYPE_CHECKING:
    from recast_core.settings import Settings
_LEAST_EPSILON = 1e-6


def clip_length(settings: Settings) -> float | None:
    """The length that ``clip`` names; ``None`` for auto.

    Raises:
        RecastError: neither a length nor auto, or one that no update is near.
    """
    if settings.clip == "auto":
        return None
    try:
        length = float(settings.clip)
    except ValueError:
        length = 0.0
    # Beyond these single precision does not hold what is made of it.
    if not 1e-9 <= length <= 1e9:
        raise RecastError(
            f"clip is {settings.clip!r}: give auto, or a length such as 0.5, from 1e-9 to 1e9"
        )
    return length


def check_privacy(settings: Settings) -> None:
    """Refuse what would promise more than it keeps.

    Raises:
        RecastError: the first setting that does not fit.
    """
    if not 0 <= settings.dp_epsilon < float("inf"):
        raise RecastError(f"dp_epsilon is {settings.dp_epsilon}: give a number, 0 for no privacy")
    if 0 < settings.dp_epsilon < _LEAST_EPSILON:
        raise RecastError(
            f"dp_epsilon is {settings.dp_epsilon}: give {_LEAST_EPSILON} or more: less leaves "
            "nothing but noise"
        )
    if not 0 < settings.dp_delta < 1:
        raise RecastError(f"dp_delta is {settings.dp_delta}: give a small part of 1, such as 1e-5")
    clip_length(settings)
    if not settings.dp_epsilon:
        # Without noise a clip still bounds what a hidden update can do.
        beside = () if settings.secure_aggregation else ("clip",)
        for name in ("dp", "dp_delta", "dp_sampling", *beside):
            if getattr(settings, name) != getattr(Privacy, name):
                option = name.replace("_", "-")
                other = " (or --secure-aggregation)" if name == "clip" else ""
                raise RecastError(
                    f"--{option} protects nobody without --dp-epsilon{other}: give both"
                )
        return
    if settings.dp == "distributed" and not settings.secure_aggregation:
        raise RecastError(
            "--dp distributed: a client's part of the noise hides it in a sum alone; give "
            "--secure-aggregation too, or use --dp local"
        )
    if settings.error_feedback:
        raise RecastError(
            "--error-feedback and --dp-epsilon: what an update left out would be said by a later "
            "one, beside the budget; leave one out"
        )
    if settings.report_loss:
        raise RecastError(
            "--report-loss and --dp-epsilon: a client's loss has no noise and no place in the "
            "budget; leave one out"
        )
    if head_kind(settings.head_kind).travels:
        raise RecastError(
            f"--head {settings.head_kind} and --dp-epsilon: what clients tell of their features "
            "has no noise; use head backbone, local or linear"
        )
    if settings.dp == "central" and settings.aggregation not in ("mean", Updates.aggregation):
        raise RecastError(
            f"--aggregation {settings.aggregation} and --dp-epsilon: only of a mean is it known "
            "how far one client can move it; leave --aggregation out, or use --dp local"
        )
    named = {word.partition(":")[0] for word in settings.transforms.replace(",", " ").split()}
    if settings.dp == "local" and named & {"round", NAME}:
        raise RecastError(
            f"--transforms {settings.transforms} and --dp local, which adds its own noise before "
            "rounding: leave round and gaussian out"
        )
