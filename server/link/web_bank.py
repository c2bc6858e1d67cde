"""A bank that clients fetch from the web, so that neither a broker nor this process carries it."""

from __future__ import annotations

import hashlib
import logging

from protos import link_v1_pb2 as link
from protos import recast_v1_pb2 as pb
from protos.web import WebError, checked_url, pieces, shown
from recast_core.errors import RecastError

logger = logging.getLogger("recast.link")


class WebBank:
    """The address of the bank's file, trusted once it has been read from there."""

    def __init__(self, url: str) -> None:
        """Remember ``url``; nothing is fetched yet.

        Raises:
            RecastError: no HTTP(S) URL.
        """
        try:
            self._url = checked_url(url)
        except ValueError as error:
            raise RecastError(f"--bank-url: {error}") from error
        self._checked = b""

    def reference(self, type_: str, body: bytes) -> link.Reference:
        """What stands for ``body``, the message that delivers a bank.

        Raises:
            RecastError: there is another file behind the URL, or none.
        """
        content = pb.ToClient.FromString(body).bank.content
        # A bank is the last field of its message.
        lead = body[: len(body) - len(content)]
        assert body == lead + content
        self._check(content)
        sha256 = hashlib.sha256(body).digest()
        return link.Reference(type=type_, sha256=sha256, size=len(body), url=self._url, lead=lead)

    def _check(self, content: bytes) -> None:
        sha256 = hashlib.sha256(content).digest()
        if sha256 == self._checked:
            return
        digest, size = hashlib.sha256(), 0
        try:
            for piece in pieces(self._url, 0, len(content) + 1):
                digest.update(piece)
                size += len(piece)
        except WebError as error:
            raise RecastError(f"--bank-url: {error}") from error
        if digest.digest() != sha256:
            many = "more" if size > len(content) else f"{size:,} bytes"
            raise RecastError(
                f"--bank-url: {shown(self._url)} is not the bank of this run ({many} of SHA-256 "
                f"{digest.hexdigest()[:16]}, it has {len(content):,} of {sha256.hex()[:16]}): "
                "put bank-….safetensors of the run's folder there"
            )
        logger.info("clients that lack the bank fetch it from %s", shown(self._url))
        self._checked = sha256
