"""Whether the settings of a run whose updates are hidden fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recast_core.errors import RecastError
from recast_core.heads import head_kind
from recast_core.secure.members import FEWEST
from recast_core.setting_fields import Updates

if TYPE_CHECKING:
    from recast_core.settings import Settings


def check_secure(settings: Settings) -> None:
    """Refuse what needs single updates, which hidden ones are not.

    Raises:
        RecastError: the first that does.
    """
    if not settings.secure_aggregation:
        return
    if settings.error_feedback:
        raise RecastError(
            "--error-feedback and --secure-aggregation: hidden updates are hardly rounded, leave "
            "--error-feedback out"
        )
    if settings.report_loss:
        raise RecastError(
            "--report-loss and --secure-aggregation: a client's loss would travel openly beside "
            "its hidden update; leave one out"
        )
    if head_kind(settings.head_kind).travels:
        raise RecastError(
            f"--head {settings.head_kind} and --secure-aggregation: what clients tell of their "
            "features would travel openly; use head backbone, local or linear"
        )
    if settings.aggregation not in ("mean", Updates.aggregation):
        raise RecastError(
            f"--aggregation {settings.aggregation} and --secure-aggregation: the rule compares "
            "single updates, which are hidden; use mean"
        )
    if settings.dp_epsilon and settings.dp == "local":
        raise RecastError(
            "--dp local and --secure-aggregation: noise that hides each update by itself is more "
            "than their sum needs; use --dp distributed"
        )
    if settings.dp_epsilon and settings.dp_sampling == "poisson":
        raise RecastError(
            "--dp-sampling poisson and --secure-aggregation: fewer clients may be drawn than hide "
            "each other, and those of a sum know of each other; leave --dp-sampling out"
        )
    if settings.clients_per_round > 0:
        _check_enough("--clients-per-round", settings.clients_per_round)


def check_count(settings: Settings, clients: int) -> None:
    """Refuse so few clients that they cannot hide each other, before anything is sent to them.

    Raises:
        RecastError: they are too few.
    """
    if settings.secure_aggregation:
        _check_enough("--clients", clients)


def _check_enough(option: str, clients: int) -> None:
    if clients < FEWEST:
        raise RecastError(
            f"{option} {clients} and --secure-aggregation: give at least {FEWEST}, fewer do not "
            "hide each other"
        )
