"""What a client's updates have not said yet, kept over restarts of its process."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from protos import recast_v1_pb2 as pb
from recast_core.files import read_bytes, write_atomically
from recast_core.wire.codec import Vector

_MAGIC = b"RCRS1"
_HEADER = struct.Struct("<II32s")  # round, D, and the digest of the broadcast


class Store(Protocol):
    """Where residuals are kept, by name."""

    def read(self, name: str) -> bytes:
        """What is kept under ``name``; empty if nothing is."""

    def write(self, name: str, content: bytes, *, private: bool = False) -> None:
        """Keep ``content`` under ``name``, all of it or nothing; ``private`` for the owner alone.

        Raises:
            RecastError: it cannot be kept.
        """


@dataclass(frozen=True)
class FileStore:
    """A client's folder."""

    folder: Path

    def read(self, name: str) -> bytes:
        """See ``Store``."""
        try:
            return read_bytes(self.folder / name)
        except OSError:
            return b""

    def write(self, name: str, content: bytes, *, private: bool = False) -> None:
        """See ``Store``."""
        write_atomically(self.folder / name, content, private=private)


@dataclass(frozen=True)
class Residuals:
    """The residual of one task of one run with one bank.

    Two vectors are kept: what was left before the last update and what that one left. Which of them
    applies depends on what became of the update, which the server knows:

    * it is the last of this client's that counted: what it left applies, however many rounds the
      client has sat out since;
    * one before it is the last that counted: what it said is lost with it, and what was left before
      it applies;
    * the same broadcast comes again (the server restarted, or the reply got lost on its way): what
      was left before it applies, and gives the same update again;
    * none of this client's has counted, as far as the server knows (another run, or a server that
      was started again), or the file is damaged: nothing applies.

    Attributes:
        store: of the client.
        name: of this residual there.
    """

    store: Store
    name: str

    @classmethod
    def of(cls, store: Store, broadcast: pb.Broadcast, task: pb.Task, client: int) -> Residuals:
        """The residual for a broadcast.

        Other tasks, seeds, widths, banks and numbers of the client have names apart, so that
        clients may share a folder.
        """
        hyper = broadcast.hyperparameters
        told = f"{task.name}\0{task.source}\0{hyper.seed}\0{hyper.bits}\0{client}".encode()
        key = hashlib.sha256(told).hexdigest()[:16]
        return cls(store, f"residual-{broadcast.bank:08x}-{broadcast.task}-{key}")

    def applicable(self, broadcast: pb.Broadcast, count: int) -> Vector | None:
        """What to add to the update that answers ``broadcast``: float32 ``[count]``, or nothing."""
        if broadcast.round <= 1:
            return None
        found = self._read(count)
        if found is None:
            return None
        round_, digest, before, after = found
        if broadcast.round == round_:
            return before if digest == _digest(broadcast) else None
        if not 0 < broadcast.counted <= round_ < broadcast.round:
            return None
        return after if broadcast.counted == round_ else before

    def keep(self, broadcast: pb.Broadcast, before: Vector | None, after: Vector) -> None:
        """Write what was left before the answer to ``broadcast`` and what it leaves.

        To be called before the answer leaves: an answer of which nothing is known here would be
        taken for one that never was.

        Raises:
            RecastError: it cannot be kept.
        """
        if before is None:
            before = np.zeros_like(after)
        body = _HEADER.pack(broadcast.round, len(after), _digest(broadcast))
        body += before.astype("<f4").tobytes() + after.astype("<f4").tobytes()
        self.store.write(self.name, _MAGIC + hashlib.sha256(body).digest() + body)

    def _read(self, count: int) -> tuple[int, bytes, Vector, Vector] | None:
        content = self.store.read(self.name)
        start = len(_MAGIC) + 32
        body = content[start:]
        if (
            len(body) != _HEADER.size + 8 * count
            or content[:start] != _MAGIC + hashlib.sha256(body).digest()
        ):
            return None
        round_, stored, digest = _HEADER.unpack(body[: _HEADER.size])
        vectors = np.frombuffer(body, "<f4", offset=_HEADER.size).astype(np.float32)
        if stored != count or not np.isfinite(vectors).all():
            return None
        return round_, digest, vectors[:count], vectors[count:]


def _digest(broadcast: pb.Broadcast) -> bytes:
    """Of what an update depends on; which one before it counted is not part of it."""
    told = pb.Broadcast()
    told.CopyFrom(broadcast)
    told.ClearField("counted")
    return hashlib.sha256(told.SerializeToString(deterministic=True)).digest()
