"""Walk a traced model."""

from __future__ import annotations

from torch import fx


def ancestors(node: fx.Node, stop: fx.Node | None = None) -> set[fx.Node]:
    """``node`` and all that it comes from, but for what lies beyond ``stop``."""
    found, waiting = {node}, [node]
    while waiting:
        current = waiting.pop()
        if current is stop:
            continue
        for parent in current.all_input_nodes:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found
