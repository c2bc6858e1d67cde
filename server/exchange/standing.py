"""How clients stand, as any grid tells it: for a page in another process, by a file of the run."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from protos.content import from_content

NAME = "clients.json"
SECONDS = 1.0
logger = logging.getLogger("recast.server")


class WatchedGrid(Grid):
    """Passes everything on, and writes who is there, who works and who was heard when.

    The file says of each node its state (``working`` where a question is open, ``idle``, ``away``
    where the grid does not list it any more), the bytes of our messages each way, and when it was
    last heard, in seconds since 1970. It is no part of the run: a disk that is full spoils nothing.
    """

    def __init__(self, grid: Grid, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Watch ``grid``, and write to ``folder`` at most every ``SECONDS``."""
        self._grid, self._path, self._clock = grid, folder / NAME, clock
        self._open: dict[str, int] = {}
        self._present: set[int] = set()
        self._heard: dict[int, float] = {}
        self._bytes: dict[int, list[int]] = {}
        self._written, self._failed = 0.0, False

    def set_run(self, run: Run) -> None:
        """Pass it on."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Of the grid."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Pass it on."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are there."""
        found = list(self._grid.get_node_ids())
        self._present = set(found)
        for node in found:
            self._bytes.setdefault(node, [0, 0])
        self._write()
        return found

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass them on; who is asked works."""
        messages = list(messages)
        names = list(self._grid.push_messages(messages))
        for name, message in zip(names, messages, strict=True):
            node = message.metadata.dst_node_id
            self._open[name] = node
            self._bytes.setdefault(node, [0, 0])[1] += len(from_content(message) or b"")
        self._write()
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass on what has come; who has answered was heard."""
        replies = list(self._grid.pull_messages(message_ids))
        for reply in replies:
            node = self._open.pop(reply.metadata.reply_to_message_id, None)
            if node is None or reply.has_error():
                continue
            self._heard[node] = self._clock()
            self._bytes[node][0] += len(from_content(reply) or b"")
        self._write()
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Pass them on."""
        return self._grid.send_and_receive(messages, timeout=timeout)

    def _write(self) -> None:
        now = self._clock()
        if self._failed or now - self._written < SECONDS:
            return
        self._written = now
        working = set(self._open.values())
        clients = {
            str(node): {
                "state": "away" if node not in self._present
                else "working" if node in working else "idle",
                "up": up,
                "down": down,
                "heard": self._heard.get(node),
            }
            for node, (up, down) in sorted(self._bytes.items())
        }  # fmt: skip
        temporary = self._path.with_name(f".{NAME}")
        try:
            temporary.write_text(json.dumps({"at": now, "clients": clients}))
            os.replace(temporary, self._path)
        except OSError as error:
            self._failed = True
            logger.warning("cannot say how clients stand in %s: %s", self._path, error)
