"""Whether a run that stands unfinished in a folder can go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recast_core.settings import Settings
from server.prepare import kept_start
from server.record.lock import hold, refuse_held
from server.record.place import is_there, registry_path
from server.record.registry import Registry
from server.record.resume import unfinished


def check_folder(settings: Settings, folder: Path) -> None:
    """Refuse a folder whose run cannot go on, before anybody is waited for.

    Raises:
        RecastError: another server is at work in it, or its registry or its bank is damaged, or of
            another run that is not finished.
    """
    refuse_held(folder)
    _check_run(settings, folder)


@contextmanager
def reserved(settings: Settings, folder: Path) -> Iterator[None]:
    """Have ``folder`` for a server from before anybody is waited for: see ``check_folder``.

    The federation runs inside of it with ``Conditions.held``.

    Raises:
        RecastError: as ``check_folder``, or the folder cannot be written.
    """
    with hold(folder):
        _check_run(settings, folder)
        yield


def _check_run(settings: Settings, folder: Path) -> None:
    path = registry_path(folder)
    if not (is_there(path) or path.exists() or path.is_symlink()):
        return
    with Registry(path) as registry:
        previous = unfinished(registry, settings.as_dict())
        if previous is None:
            return
        kept_start(folder, previous.bank_sha256, settings)
        for task, rounds in registry.last_rounds(previous.id).items():
            if rounds:
                registry.coefficients(previous.id, task)
