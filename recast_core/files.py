"""Files that are written whole or not at all, and read only where they are files."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from recast_core.errors import RecastError


def write_atomically(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write ``content`` to ``path`` so that a reader sees all of it or nothing.

    A ``private`` file only its owner can read.

    Raises:
        RecastError: the folder cannot be made or written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o600 if private else 0o666
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RecastError(
            f"cannot write {path}: {error.strerror or error}; {remedy(error)}"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_writable(path: Path) -> None:
    """Refuse a path where no file can be written, before the work whose result it is to hold.

    Raises:
        RecastError: a folder, below what is no folder or cannot be written, or no name of a file.
    """
    try:
        if path.is_dir():
            raise RecastError(f"{path} is a folder: name a file to write to")
        place = next(parent for parent in path.absolute().parents if parent.exists())
    except OSError as error:  # a name that is too long
        raise RecastError(f"cannot write {path}: {error.strerror}; choose another name") from error
    if not place.is_dir():
        raise RecastError(f"cannot write {path}: {place} is a file; choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RecastError(f"cannot write {path}: {place} cannot be written; choose another folder")


def read_bytes(path: Path) -> bytes:
    """What is in the file at ``path``, which somebody else may have put there.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which might never end.
    """
    # Opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def read_text(path: Path, errors: str = "strict") -> str:
    """What is in the text file at ``path``, which is UTF-8; as ``read_bytes``.

    Raises:
        OSError: as ``read_bytes``.
        UnicodeDecodeError: it is other text, and ``errors`` is ``strict``.
    """
    text = read_bytes(path).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def remedy(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "make room on that disk" if full else "choose a folder that can be written"
