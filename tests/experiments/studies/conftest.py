"""Studies as one starts them, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def run(name: str, *arguments: str) -> dict[str, Any]:
    """What ``python -m experiments.studies.NAME`` prints last."""
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.studies.{name}", *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def study() -> Callable[..., dict[str, Any]]:
    return run
