"""A plug-in for runs that are looked at while they go on: they wait, and say what they are at."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from experiments.logs.callback import Callback, RoundFinished
from experiments.logs.table import register_log

NAME = "tests.experiments.pausing"


class Pause(Callback):
    """Holds a run back from its N-th round on until a file is there: ``--log pause:N:FILE``."""

    def __init__(self, where: str) -> None:
        step, _, path = where.partition(":")
        self._step, self._path = int(step), Path(path)

    def round_finished(self, event: RoundFinished) -> None:
        while event.step >= self._step and not self._path.exists():
            time.sleep(0.01)


register_log("pause", Pause)
logging.getLogger("recast.server").setLevel(logging.INFO)
