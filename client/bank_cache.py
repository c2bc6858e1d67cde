"""A client's banks: files named by their SHA-256, so that each crosses the network once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.files import read_bytes, write_atomically

# A bank's file, and one with the name of a method that needs none.
BANK, METHOD = ".safetensors", ".method"


def verified(content: bytes, sha256: bytes) -> TemplateBank:
    """The bank in the bytes that were sent.

    Raises:
        RecastError: they are no bank, or another bank than was announced.
    """
    bank = TemplateBank.from_bytes(content, name="the bank that was sent")
    if bank.sha256 != sha256:
        raise RecastError(
            f"the bank that was sent is {bank.prefix:08x}, {sha256[:4].hex()} was announced: "
            "check the server's version"
        )
    return bank


class BankCache:
    """A folder of banks. Files are complete or absent; a damaged one counts as absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: bytes) -> Path:
        """Where the bank of this identity is kept."""
        return self.folder / f"{sha256.hex()}{BANK}"

    def find(self, prefix: int) -> Path | None:
        """The file of the bank or method whose identity starts with ``prefix``, or ``None``."""
        for suffix in (BANK, METHOD):
            matches = sorted(self.folder.glob(f"{prefix:08x}*{suffix}"))
            if matches:
                return matches[0]
        return None

    def holds(self, sha256: bytes) -> bool:
        """Whether the bank is here and sound; a damaged file is removed."""
        path = self.path(sha256)
        if len(sha256) != hashlib.sha256().digest_size or not path.exists():
            return False
        try:
            TemplateBank.load(path, sha256)
        except RecastError:
            path.unlink(missing_ok=True)
            return False
        return True

    def store(self, content: bytes, sha256: bytes) -> Path:
        """Verify a bank's bytes and keep them.

        Raises:
            RecastError: they are no bank, another bank, or cannot be written.
        """
        verified(content, sha256)
        path = self.path(sha256)
        write_atomically(path, content)
        return path

    def store_method(self, method: str, sha256: bytes) -> None:
        """Remember which method has this identity, so that messages need not repeat its name.

        Raises:
            RecastError: the folder cannot be written.
        """
        path = self.folder / f"{sha256.hex()}{METHOD}"
        if not path.exists() or read_bytes(path) != method.encode():
            write_atomically(path, method.encode())
