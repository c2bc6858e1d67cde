"""Fetch a large body into a file, from where an earlier attempt stopped."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import grpc.aio

from protos import link_v1_pb2 as link
from protos.link import FETCH, SERVICE
from protos.web import WebError, pieces, shown
from recast_core.errors import RecastError
from recast_core.files import read_bytes


class GoneError(Exception):
    """Nobody has the body any more."""


class InterruptedFetchError(Exception):
    """A fetch that goes on later where it stopped; the text, if any, says why."""


class UnobtainableError(Exception):
    """A body that cannot be had; the text is cause and remedy."""


class PartFile:
    """A body that is being fetched: ``SHA256.part`` until it is whole, then ``SHA256.body``."""

    def __init__(self, folder: Path, sha256: bytes, size: int) -> None:
        self._sha256, self.size, self._folder = sha256, size, folder
        self._part = folder / f"{sha256.hex()}.part"
        self._whole = folder / f"{sha256.hex()}.body"

    @property
    def offset(self) -> int:
        """How many bytes are here; more than the body has are worth nothing."""
        for path in (self._whole, self._part):
            if path.exists():
                have = path.stat().st_size
                if have <= self.size:
                    return have
                path.unlink()
        return 0

    def prepare(self) -> None:
        """Make the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def append(self, content: bytes) -> None:
        """Add bytes at the end."""
        with self._part.open("ab") as file:
            file.write(content)

    def finish(self) -> bytes:
        """The body, checked.

        Raises:
            RecastError: it is not the one that was announced; what was here is gone.
        """
        path = self._whole if self._whole.exists() else self._part
        body = read_bytes(path) if path.exists() else b""
        if hashlib.sha256(body).digest() != self._sha256:
            self.remove()
            raise RecastError(
                f"the {len(body)} bytes that were fetched are not what the server announced: "
                "they are fetched again"
            )
        if path == self._part:
            os.replace(self._part, self._whole)
        return body

    def remove(self) -> None:
        """Delete what is here."""
        self._part.unlink(missing_ok=True)
        self._whole.unlink(missing_ok=True)


async def fetch(channel: grpc.aio.Channel, part: PartFile, sha256: bytes, name: str) -> bytes:
    """The body of that SHA-256; an attempt that fails leaves what came for the next one.

    Raises:
        grpc.aio.AioRpcError: the link dropped, or the server has no such body (any more).
        OSError: the disk takes no more.
        RecastError: other bytes came.
    """
    if part.offset < part.size:
        request = link.FetchRequest(sha256=sha256, offset=part.offset, name=name)
        method: Any = channel.unary_stream(f"/{SERVICE}/{FETCH}")
        call: Any = method(request.SerializeToString())
        room = part.size - part.offset
        try:
            async for raw in call:
                content = link.Chunk.FromString(raw).content
                room -= len(content)
                if room < 0:
                    break
                part.append(content)
        finally:
            # The server would wait for ever for a disk that is full.
            call.cancel()
    return part.finish()


def fetch_from_web(part: PartFile, reference: link.Reference) -> bytes:
    """The body whose last bytes are behind a URL; blocks.

    Raises:
        InterruptedFetchError: what came stays for the next attempt.
        UnobtainableError: the URL is none, leads nowhere, or to another file.
        OSError: the disk takes no more.
    """
    lead, where = reference.lead, shown(reference.url)
    if part.offset < len(lead):
        part.remove()
        part.append(lead)
    try:
        if part.offset < part.size:
            room = part.size - part.offset
            for piece in pieces(reference.url, part.offset - len(lead), room):
                part.append(piece)
    except ValueError as error:
        raise UnobtainableError(f"the server names {error}") from error
    except WebError as error:
        if error.permanent:
            raise UnobtainableError(str(error)) from error
        raise InterruptedFetchError(f": {error}") from error
    try:
        return part.finish()
    except RecastError as error:
        raise UnobtainableError(
            f"the file at {where} is not the bank that the server announced: tell the federation's "
            "operator"
        ) from error
