"""Logs by name: ``KIND:WHERE`` as ``--log`` and ``log=`` have it."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.logs.callback import Callback, RoundFinished, RunStarted, TaskFinished
from experiments.logs.csv_log import CsvLog
from experiments.logs.mlflow_log import MlflowLog
from experiments.logs.tensorboard_log import TensorboardLog
from experiments.logs.wandb_log import WandbLog
from recast_core.errors import RecastError, in_a_line

logger = logging.getLogger("recast.logs")

# From WHERE to a callback, which refuses at once what cannot be.
_KINDS: dict[str, Callable[[str], Callback]] = {
    "csv": CsvLog,
    "tensorboard": TensorboardLog,
    "wandb": WandbLog,
    "mlflow": MlflowLog,
}


def register_log(name: str, make: Callable[[str], Callback]) -> None:
    """Let ``--log NAME:WHERE`` name what ``make`` makes of ``WHERE``.

    Raises:
        RecastError: another log has the name.
    """
    if _KINDS.setdefault(name, make) is not make:
        raise RecastError(f"log {name!r} is registered already: give another name")


def open_logs(specs: Sequence[str]) -> list[Callback]:
    """The logs of these specifications, each ``KIND:WHERE``.

    A log that fails later, as where a disk is full, is warned of once and left out.

    Raises:
        RecastError: an unknown kind, a package that is missing, or a place that cannot be written.
    """
    return [_Guarded(spec, _opened(spec)) for spec in specs]


def _opened(spec: str) -> Callback:
    kind, colon, where = spec.partition(":")
    if kind not in _KINDS:
        near = difflib.get_close_matches(kind, _KINDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RecastError(
            f"unknown log {spec!r}{hint}: give {', '.join(f'{name}:WHERE' for name in _KINDS)}"
        )
    if not colon or not where:
        raise RecastError(f"log {spec!r} does not say where: give {kind}:WHERE")
    return _KINDS[kind](where)


class _Guarded(Callback):
    """A log that may fail without ending the run."""

    def __init__(self, spec: str, inner: Callback) -> None:
        self._spec, self._inner = spec, inner
        self._failed = False

    def run_started(self, event: RunStarted) -> None:
        self._try(lambda: self._inner.run_started(event))

    def round_finished(self, event: RoundFinished) -> None:
        self._try(lambda: self._inner.round_finished(event))

    def task_finished(self, event: TaskFinished) -> None:
        self._try(lambda: self._inner.task_finished(event))

    def run_finished(self, report: Mapping[str, Any]) -> None:
        self._try(lambda: self._inner.run_finished(report))

    def close(self) -> None:
        # Also of one that has failed: what it holds open is given back.
        try:
            self._inner.close()
        except Exception as error:
            self._warn(error)

    def _try(self, tell: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            tell()
        except Exception as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._failed:
            reason = in_a_line(error, 200)
            logger.warning("log %s failed and is left out from now on: %s", self._spec, reason)
        self._failed = True
