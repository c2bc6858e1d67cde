"""Packages that not everybody installs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from recast_core.errors import RecastError


@contextmanager
def needed(what: str, package: str, extra: str) -> Iterator[None]:
    """Import a package within the block, or say which extra brings it.

    Raises:
        RecastError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise RecastError(f"{what} needs {package}: `pip install 'recast-fl[{extra}]'`") from error
