"""What the measurement asks of a transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from experiments.measure.relay import Relay
from recast_core.settings import Settings


class Deployment(Protocol):
    """A federation of real processes on loopback, with a relay before every client.

    The measurement calls ``start``, then ``join`` for each client, then ``begin``, and looks at the
    run's registry until it is no longer ``running``; ``stop_client`` and ``cut`` of a relay come in
    between. Whatever fails is a ``RecastError``.

    Attributes:
        relays: of each client, in order.
        period: seconds after which an idle link repeats what it says, at most. An idle window
            shorter than this would miss it.
    """

    relays: Sequence[Relay]
    period: float

    def start(self, settings: Settings) -> None:
        """Start the server of the run that ``settings`` describe; return once clients can join.

        Args:
            settings: with ``run_dir`` set.
        """

    def join(self, client: int) -> None:
        """Start a client's process, from 0; return once the server knows it."""

    def begin(self) -> None:
        """Let the run begin, for the clients that have joined."""

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
