"""Log lines of the link's two commands: plain, or one JSON object each."""

from __future__ import annotations

import json
import logging
import time

from experiments.command.aside import Aside
from protos.link_address import Address
from recast_core.errors import RecastError


class JsonLines(logging.Formatter):
    """``{"time", "level", "logger", "message"}``; time is ISO 8601 in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up(*, as_json: bool, handler: logging.Handler | None = None) -> None:
    """Send what ``recast`` logs to standard error, or to ``handler``."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    handler = handler or Aside()
    if as_json:
        handler.setFormatter(JsonLines())
    elif isinstance(handler, Aside):
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    recast = logging.getLogger("recast")
    recast.handlers[:] = [handler]
    recast.setLevel(logging.INFO)
    recast.propagate = False


def check_insecure(address: str, *, forced: bool) -> None:
    """Plain text is for one machine.

    Raises:
        RecastError: no ``HOST:PORT``, or another address than loopback, and nobody insisted.
    """
    if not address_of(address).is_loopback and not forced:
        raise RecastError(
            f"--insecure at {address} would let anyone on the way read and change everything: "
            "make certificates with `recast certs init`, or insist with --force-insecure"
        )


def address_of(text: str) -> Address:
    """The address that a user wrote.

    Raises:
        RecastError: it is no ``HOST:PORT``.
    """
    try:
        return Address.parse(text)
    except ValueError as error:
        raise RecastError(str(error)) from error
