"""Bodies too large for a stream, by their SHA-256, for as long as a message refers to them."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter


class Bodies:
    """A store that counts references. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._content: dict[bytes, bytes] = {}
        self._types: dict[bytes, str] = {}
        self._uses: Counter[bytes] = Counter()

    def add(self, body: bytes, type_: str) -> bytes:
        """Keep ``body``, of a message of that type, once more; returns its SHA-256."""
        sha256 = hashlib.sha256(body).digest()
        with self._lock:
            self._content.setdefault(sha256, body)
            self._types[sha256] = type_
            self._uses[sha256] += 1
        return sha256

    def release(self, sha256: bytes) -> None:
        """Keep it once less."""
        with self._lock:
            self._uses[sha256] -= 1
            if self._uses[sha256] <= 0:
                del self._uses[sha256], self._content[sha256], self._types[sha256]

    def get(self, sha256: bytes) -> bytes | None:
        """The body, if any message refers to it."""
        with self._lock:
            return self._content.get(sha256)

    def type_of(self, sha256: bytes) -> str:
        """The type of the messages that refer to a body."""
        with self._lock:
            return self._types.get(sha256, "")
