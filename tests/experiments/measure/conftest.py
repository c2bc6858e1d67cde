"""What a run's registry holds in the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from server.record.registry import Registry


def bytes_of(folder: Path) -> list[bytes]:
    """The bytes of every round's coefficients, of a run that is finished."""
    with Registry(folder / "registry.sqlite") as registry:
        assert [run.status for run in registry.runs()] == ["finished"]
        return [
            entry.coefficients
            for task in registry.tasks(1)
            for entry in registry.rounds(1, task.number)
        ]


@pytest.fixture
def coefficients() -> Callable[[Path], list[bytes]]:
    return bytes_of
