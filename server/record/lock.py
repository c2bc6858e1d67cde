"""One server in a run's folder at a time, and how others tell that it is alive.

The kernel drops the lock of a process that dies, however it dies, so a run that is recorded as
running in a folder that nobody has locked was killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recast_core.errors import RecastError
from recast_core.files import read_text
from server.record.place import REGISTRY, place_of
from server.record.registry import Registry

LOCK = "server.lock"


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep every other server out of ``folder``, which is made if it is missing.

    A folder that was made, and in which nothing came to be, goes again.

    Raises:
        RecastError: another server is in it, or it cannot be written.
    """
    made = not folder.exists()
    descriptor = _taken(folder)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        if made:
            _clear(folder)
        os.close(descriptor)


def _taken(folder: Path) -> int:
    """The open lock of ``folder``, which is this process's now."""
    while True:
        descriptor = _opened(folder)
        try:
            if not _lock(descriptor, fcntl.LOCK_EX):
                if _lock(descriptor, fcntl.LOCK_SH):  # somebody only looks, and will have looked
                    os.close(descriptor)
                    continue
                owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise RecastError(_occupied(folder, owner))
            if os.fstat(descriptor).st_nlink:  # else its folder went between opening and locking
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _opened(folder: Path) -> int:
    path = folder / LOCK
    if folder.is_file():
        raise RecastError(f"{folder} is a file: name a folder for the run with --run-dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no regular file")
    except OSError as error:
        raise RecastError(
            f"cannot write {path} ({error.strerror}): choose a folder that can be written"
        ) from error
    return descriptor


def _clear(folder: Path) -> None:
    """Remove a folder in which nothing is but the lock, which this process has."""
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
            folder.rmdir()


def refuse_held(folder: Path) -> None:
    """Say at once what ``hold`` would say.

    Raises:
        RecastError: another server is at work in ``folder``.
    """
    if _is_locked(folder):
        owner = read_text(folder / LOCK).strip()[:32] or "unknown"
        raise RecastError(_occupied(folder, owner))


def _occupied(folder: Path, owner: str) -> str:
    return (
        f"another server (process {owner}) is running in {folder}: stop it, or name another "
        "--run-dir"
    )


def is_held(folder: Path) -> bool:
    """Whether a server is at work in ``folder``, on any machine where a database knows of it.

    Raises:
        RecastError: a database that the folder points to is away.
    """
    return _is_locked(folder) or _is_claimed(folder / REGISTRY)


def _is_locked(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared: who looks keeps no server out that begins, and none else who looks.
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _is_claimed(path: Path) -> bool:
    if not place_of(path).url:
        return False
    with Registry(path, read_only=True) as registry:
        return registry.is_claimed()


def settle(registry: Registry) -> None:
    """Record runs that are ``running``, though no server is at work, as ``interrupted``."""
    dead = [run.id for run in registry.runs() if run.status == "running"]
    if dead and not is_held(registry.path.parent):
        for run in dead:
            registry.finish_run(run, "interrupted")


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
