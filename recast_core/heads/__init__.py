"""Heads: a task's classifier over the backbone's features, one kind a file.

Each kind declares what it sends (``statistics``, ``layout``); none is free but those that stay on
their client. A further kind is registered with ``register_head``.
"""

from recast_core.heads.backbone import DeployedHead
from recast_core.heads.base import (
    HeadKind,
    Numbers,
    Statistics,
    StayingHead,
    TravellingHead,
    right_answers,
    sent_bytes,
    sent_numbers,
)
from recast_core.heads.linear import LocalLinear, logistic_head
from recast_core.heads.local import LocalRidge
from recast_core.heads.means import Means
from recast_core.heads.ridge import ridge_head
from recast_core.heads.ridge_sums import RidgeSums
from recast_core.heads.shared import SharedLinear, head_statistics
from recast_core.heads.table import head_kind, head_names, register_head

for _kind in (LocalRidge, DeployedHead, LocalLinear, Means, RidgeSums, SharedLinear):
    register_head(_kind)

__all__ = [
    "DeployedHead",
    "HeadKind",
    "LocalLinear",
    "LocalRidge",
    "Means",
    "Numbers",
    "RidgeSums",
    "SharedLinear",
    "Statistics",
    "StayingHead",
    "TravellingHead",
    "head_kind",
    "head_names",
    "head_statistics",
    "logistic_head",
    "register_head",
    "ridge_head",
    "right_answers",
    "sent_bytes",
    "sent_numbers",
]
