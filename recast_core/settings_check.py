"""Whether the settings of a run fit together."""

from __future__ import annotations

import re

from recast_core.errors import RecastError
from recast_core.heads import head_kind
from recast_core.kept_task import parse_kept
from recast_core.privacy.check import check_privacy
from recast_core.secure.check import check_secure
from recast_core.setting_values import parse_quorum
from recast_core.settings import Settings
from recast_core.targets import patterns_of
from recast_core.task_spec import parse_tasks
from recast_core.wire.codec import check_bits
from recast_core.wire.transforms import chain

# Images of a step, by the objective: below this no step teaches anything. Of a half of a batch that
# has two classes the other half must have one; of equal batches of up to 4 one has at least 3.
LEAST_BATCH = {"split-ridge": 4, "label-free": 2, "cross-entropy": 1}
CHOICES = {
    "statistics": ("auto", "frozen", "recompute"),
    "decay": ("auto", "none", "cosine"),
    "begin": ("nearest", "bank"),
    "rounding": ("nearest", "stochastic"),
    "dp": ("central", "local", "distributed"),
    "ledger": ("full", "summary"),
    "dp_sampling": ("fixed", "poisson"),
}
# What messages and the registry count in.
_MOST = (1 << 31) - 1


def check(settings: Settings) -> None:
    """Refuse settings that no run could have.

    Raises:
        RecastError: the first that does not fit.
    """
    _check_numbers(settings)
    _check_head(settings)
    for name, known in CHOICES.items():
        if (given := getattr(settings, name)) not in known:
            raise RecastError(f"unknown {name} {given!r}: choose {' or '.join(known)}")
    _check_kept(settings)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", settings.device):
        raise RecastError(f"unknown device {settings.device!r}: choose auto, cpu or cuda")
    chain(settings.transforms)
    if settings.bits:
        check_bits(settings.bits)
    check_bits(settings.broadcast_bits)
    if settings.canonical_method() != "recast" and settings.bank:
        raise RecastError(f"method {settings.method} has no bank: leave --bank out")
    patterns_of(settings.target)
    settings.recast()
    check_privacy(settings)
    check_secure(settings)


def _check_numbers(settings: Settings) -> None:
    for name in ("rounds", "epochs", "batch", "parallel_tasks"):
        if getattr(settings, name) < 1:
            raise RecastError(f"{name} is {getattr(settings, name)}: give at least 1")
        if getattr(settings, name) > _MOST:
            raise RecastError(f"{name} is {getattr(settings, name)}: give at most {_MOST}")
    if settings.batch < (least := LEAST_BATCH[settings.objective]):
        raise RecastError(
            f"batch is {settings.batch}: a step teaches nothing with fewer than {least} images, of "
            "which one half is scored by the other"
        )
    if not 0 <= settings.learning_rate < float("inf"):
        raise RecastError(f"learning_rate is {settings.learning_rate}: give a number of 0 or more")
    if settings.evaluate_every < 0:
        raise RecastError(
            f"evaluate_every is {settings.evaluate_every}: give a number of rounds, or 0 for none"
        )
    if settings.clients_per_round < 0:
        raise RecastError(
            f"clients_per_round is {settings.clients_per_round}: give a number, or 0 for all"
        )
    if not 0 < settings.deadline < float("inf"):
        raise RecastError(f"deadline is {settings.deadline}: give seconds, more than 0")
    if not 0 <= settings.max_lag < float("inf"):
        raise RecastError(f"max_lag is {settings.max_lag}: give a number, 0 for the deadline alone")
    if settings.max_weight and not 1 <= settings.max_weight < float("inf"):
        raise RecastError(f"max_weight is {settings.max_weight}: give 1 or more, or 0 for no limit")
    parse_quorum(settings.quorum)
    if not 0 <= settings.seed < 2**32:
        raise RecastError(f"seed is {settings.seed}: give a whole number from 0 to 4294967295")


def _check_kept(settings: Settings) -> None:
    """What only a kept classifier allows."""
    if settings.recomputes and not settings.keeps:
        raise RecastError(
            f"statistics recompute and head {settings.head_kind}: the deployed classifier says "
            "where they help, use head backbone, or statistics frozen"
        )
    if settings.labels < -1:
        raise RecastError(f"labels is {settings.labels}: give a number, 0 for none or -1 for all")
    if settings.labels == 0 and not settings.all_keep:
        raise RecastError(
            f"labels 0 and head {settings.head_kind}, which is fitted to labels: use head "
            "backbone, which the deployed network brings, or give labels"
        )


def _check_head(settings: Settings) -> None:
    """Refuse a kind of head that is not there, and an earlier task whose head nobody could keep.

    Raises:
        RecastError: which.
    """
    kind, kept = settings.head_kind, parse_kept(settings.head)
    found = head_kind(kind)
    if kept is None:
        return
    if not (found.kept or found.travels):
        raise RecastError(
            f"head {settings.head}: a {kind} head never leaves its client, so no other task can "
            f"keep it; let {kept.name} learn one that travels (task:{kept.name}:ridge, :means or "
            ":shared), or name none for ridge"
        )
    names = [spec.name for spec in parse_tasks(settings.tasks)]
    if not kept.path and kept.name not in names:
        raise RecastError(
            f"head {settings.head}: the run has no task {kept.name!r} ({', '.join(names)}); name "
            f"one of these, or where it was learned: task:{kept.name}@PATH"
        )
    if kept.path and kept.name in names:
        raise RecastError(
            f"head {settings.head}: {kept.name!r} is a task of this run too; give that another name"
        )
    if not kept.path and names[-1] == kept.name and not found.kept and not settings.keep_running:
        raise RecastError(
            f"head {settings.head}: no task follows {kept.name!r} that could keep its head; name "
            "it first"
        )
