"""How this process starts further `recast` commands."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def program() -> list[str]:
    """The installed script: beside this Python, else on the PATH.

    Where there is none, a Python that leaves the current folder off its path: what lies there may
    be called like one of our packages.
    """
    beside = Path(sys.executable).parent / "recast"
    script = str(beside) if os.access(beside, os.X_OK) else shutil.which("recast")
    return [script] if script else [sys.executable, "-P", "-m", "experiments.command.cli"]


def environment() -> dict[str, str]:
    """What lets the command find the packages of this process, wherever they were imported from."""
    if str(_ROOT) in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return {}
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(_ROOT), *([before] if before else [])])}
