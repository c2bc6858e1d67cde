"""A number that only the server knows, kept with its run."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from recast_core.errors import RecastError
from recast_core.files import read_text, remedy

NAME = "sampling.secret"
BYTES = 16
_HEX = re.compile(f"[0-9a-f]{{{2 * BYTES}}}")


def sampling_secret(folder: Path) -> int:
    """The secret of the runs in ``folder``; made where there is none.

    Raises:
        RecastError: the file cannot be read or written, or is none of ours.
    """
    path = folder / NAME
    try:
        if not path.exists():
            made = path.with_name(f".{NAME}.{secrets.token_hex(8)}")
            descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w") as file:  # noqa: PTH123
                file.write(secrets.token_hex(BYTES))
            made.replace(path)
        text = read_text(path).strip()
        if not _HEX.fullmatch(text):
            raise ValueError("a secret of another length could be guessed")
        return int(text, 16)
    except OSError as error:
        text = f"cannot use {path}: {error.strerror or error}; {remedy(error)}"
        raise RecastError(text) from error
    except ValueError as error:
        raise RecastError(f"{path} is no secret of ours: delete it to have another made") from error
