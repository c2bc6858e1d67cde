"""What the measurement asks of a transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from experiments.relay import Relay
from recast_core.settings import Settings


class Deployment(Protocol):
    """A federation of real processes on loopback, with a relay before every client.

    The measurement calls ``start``, then ``join`` for each client, then ``begin``, and looks at the
    run's registry until it is no longer ``running``; ``stop_client`` and ``cut`` of a relay come in
    between. Whatever fails is a ``RecastError``.
    """

    relays: Sequence[Relay]

    def start(self) -> None:
        """Start the server; return once clients can join."""

    def join(self, client: int) -> None:
        """Start a client's process, from 0; return once the server knows it."""

    def begin(self, settings: Settings) -> None:
        """Let the run that ``settings`` describe begin, with ``run_dir`` set."""

    def running(self) -> bool:
        """Whether the run goes on.

        Raises:
            RecastError: it, the server or a client failed.
        """

    def client_id(self, client: int) -> str:
        """What the server's ledger calls a client that has joined."""

    def stop_client(self, client: int, kill: bool = False) -> None:
        """End a client's process, which may join again."""

    def stop(self) -> None:
        """End every process."""
