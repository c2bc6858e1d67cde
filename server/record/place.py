"""Where a registry is: a file in a run's folder, or a database that the folder points to."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from recast_core.errors import RecastError
from recast_core.files import read_text, write_atomically

REGISTRY, POINTER = "registry.sqlite", "registry.url"
_DRIVERS = ("postgres", "postgresql", "postgresql+psycopg")
_FORM = "postgresql+psycopg://USER@HOST/DATABASE"


@dataclass(frozen=True)
class Place:
    """A registry's place.

    Attributes:
        path: of an SQLite file; where the registry is in a database, what it would be.
        url: of the database, without a password; empty for a file.
        folder: what the runs of this folder are known by in the database.
    """

    path: Path
    url: str = ""
    folder: str = ""

    def __str__(self) -> str:
        return self.url or str(self.path)


def registry_path(folder: Path) -> Path:
    """What the registry of a run's folder goes by: its file, where it is one."""
    return folder / REGISTRY


def place_of(path: Path) -> Place:
    """The registry that goes by ``path``, a file or what a file beside it points to.

    Raises:
        RecastError: a pointer that cannot be read, or points nowhere; a name that no folder has.
    """
    pointer = path.with_name(POINTER)
    try:
        if path.name != REGISTRY or not pointer.is_file():
            return Place(path)
    except OSError as error:
        raise RecastError(f"{path.parent}: {error.strerror}; name another folder") from error
    lines = read_text(pointer).splitlines()
    if len(lines) != 2 or not lines[1]:
        raise RecastError(f"{pointer} is damaged: restore a copy, it holds a URL and a folder")
    return Place(path, str(checked_url(lines[0])), lines[1])


def is_there(path: Path) -> bool:
    """Whether there is a registry by this path."""
    return path.is_file() or (path.name == REGISTRY and path.with_name(POINTER).is_file())


def registries(folder: Path) -> list[Path]:
    """What the registries of the folders in ``folder`` go by."""
    found = {path for name in (REGISTRY, POINTER) for path in folder.glob(f"*/{name}")}
    return sorted({path.with_name(REGISTRY) for path in found if path.is_file()})


def changed(path: Path) -> float:
    """When a registry's file last changed; of one in a database, when its folder began."""
    beside = (path, path.with_name(f"{path.name}-wal"), path.with_name(POINTER))
    times = [0.0]
    for file in beside:
        with suppress(FileNotFoundError):  # the log goes when the last who has the file open ends
            times.append(file.stat().st_mtime)
    return max(times)


def named(path: Path, url: str) -> Place:
    """The registry of a folder's runs, which ``url`` says is in a database; nothing is written.

    Args:
        path: of the file that it would be.
        url: empty for wherever the folder says.

    Raises:
        RecastError: the folder has a registry elsewhere.
    """
    there = place_of(path)
    if not url:
        return there
    wanted = str(checked_url(url))
    if path.is_file():
        raise RecastError(f"{path.parent} keeps its runs in {path.name}: name another --run-dir")
    if there.url and there.url != wanted:
        raise RecastError(
            f"{path.parent} keeps its runs in {there.url}: leave --registry out, or name another "
            "--run-dir"
        )
    return there if there.url else Place(path, wanted, str(path.parent.absolute()))


def point(place: Place) -> None:
    """Let the folder say where its registry is.

    Raises:
        RecastError: it cannot be written.
    """
    if place.url and not place.path.with_name(POINTER).is_file():
        content = f"{place.url}\n{place.folder}\n"
        write_atomically(place.path.with_name(POINTER), content.encode())


def checked_url(text: str) -> URL:
    """The URL of a database.

    Raises:
        RecastError: of another kind, or with a password, which would be recorded with the run.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise RecastError(f"--registry is no URL: give {_FORM}") from error
    if url.drivername not in _DRIVERS:
        raise RecastError(
            f"--registry {url.drivername}:// is no database that recast can use: give {_FORM}, or "
            "leave it out for a file in the run's folder"
        )
    if url.password is not None or "password" in url.query:
        raise RecastError(
            "--registry with a password would be recorded with the run: leave it out, and set "
            "PGPASSWORD or write it to ~/.pgpass"
        )
    if not url.database:
        raise RecastError(f"--registry names no database: give {_FORM}")
    return url.set(drivername="postgresql+psycopg")
