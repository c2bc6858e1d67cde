"""What reached a task without sending anything, beside what was learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def beside(baselines: Mapping[str, float]) -> dict[str, Any]:
    """What sends nothing, where the classifier was kept; nothing for another head.

    Args:
        baselines: fractions by name, as the registry has them of one task.

    Returns:
        ``deployed_accuracy`` (before any adaptation), ``zero_byte_accuracy`` (the best of all) and
        the ``baselines`` themselves; empty where there are none.
    """
    if not baselines:
        return {}
    return {
        "deployed_accuracy": baselines.get("deployed"),
        "zero_byte_accuracy": max(baselines.values()),
        "baselines": dict(baselines),
    }
