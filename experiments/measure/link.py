"""The lean link: ``recast serve``, and a ``recast join`` for each client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from experiments.command import certs, program
from experiments.measure.processes import Child, Processes
from experiments.measure.relay import LOOPBACK, Relay, Relays, free_port
from experiments.measure.share import deal
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.link.identity import node_id

SECONDS_TO_START = 300.0


class LinkDeployment:
    """A :class:`~experiments.measure.deployment.Deployment` through recast's own programs."""

    # The commands' --keepalive: an idle link is silent in between.
    period = 240.0

    def __init__(self, folder: Path, relays: Relays, clients: int, *, secure: bool = False) -> None:
        """Prepare; nothing runs yet.

        Args:
            folder: gets logs, certificates, the clients' data and their caches.
            relays: where to open a relay for each client.
            clients: how many.
            secure: mutual TLS.
        """
        self._folder = folder
        self._secure = secure
        self._port = free_port()
        environment = {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            **program.environment(),
        }
        self._processes = Processes(folder / "logs", environment)
        self._server: Child | None = None
        self._joined: dict[int, Child] = {}
        self._data: list[Path] = []
        self._device = "auto"
        self.relays: Sequence[Relay] = [relays.open((LOOPBACK, self._port)) for _ in range(clients)]

    def start(self, settings: Settings) -> None:
        """Start the server, which waits for ``begin`` when all have joined."""
        self._processes.__enter__()
        clients = len(self.relays)
        self._device = settings.device
        self._data = deal(settings, clients, self._folder / "data")
        self.make_certificates()
        command = [
            "serve", "--clients", str(clients), "--wait-for", str(self._begin),
            *self._server_options(), *_options(settings),
        ]  # fmt: skip
        self._server = self._start("server", command)
        self._server.wait_for("listening at", SECONDS_TO_START)

    def join(self, client: int) -> None:
        """Start a client; return once the server has welcomed it."""
        assert self._server is not None
        server, name = self._server, self._name(client)
        welcome = f"client {name} joined"
        before = server.said().count(welcome)
        # By name: TLS sessions are resumed for names, not for addresses.
        command = [
            "join", *self._client_options(self.relays[client].port), "--name", name,
            "--number", str(client), "--data", str(self._data[client]), "--device", self._device,
            "--cache", str(self._folder / "caches" / name),
        ]  # fmt: skip
        child = self._start(name, command)
        child.wait_until(
            lambda: server.said().count(welcome) > before,
            SECONDS_TO_START,
            "the server welcomed it",
        )
        self._joined[client] = child

    def begin(self) -> None:
        """Let the server go on."""
        self._begin.touch()

    def running(self) -> bool:
        """Whether the run goes on; clients that were told that it has finished may have left."""
        for child in (self._server, *self._joined.values()):
            if child is not None and child.process.poll() not in (None, 0):
                raise child.failure(f"ended with code {child.process.returncode} during the run")
        if self._server is None:
            raise RecastError("no run was begun: call start first")
        return self._server.running

    def client_id(self, client: int) -> str:
        """The node id, which follows from the name."""
        return str(node_id(self._name(client)))

    def stop_client(self, client: int, kill: bool = False) -> None:
        """End a client's process."""
        self._joined.pop(client).stop(kill)

    def stop(self) -> None:
        """End every process that this object started."""
        self._joined = {}
        self._server = None
        self._processes.__exit__(None, None, None)

    @property
    def _begin(self) -> Path:
        return self._folder / "begin"

    @property
    def _certificates(self) -> Path:
        return self._folder / "certs"

    def make_certificates(self) -> None:
        """Make them, with TLS, unless they are there."""
        if self._secure and not self._certificates.exists():
            certs.init(self._certificates, ["localhost"], self._names(), force=False)

    def _names(self) -> Sequence[str]:
        """Of those who get a certificate."""
        return [self._name(client) for client in range(len(self.relays))]

    def _server_options(self) -> list[str]:
        return ["--listen", f"{LOOPBACK}:{self._port}", *self._security()]

    def _client_options(self, port: int) -> list[str]:
        return [f"localhost:{port}", *self._security()]

    def _security(self) -> list[str]:
        return ["--certs", str(self._certificates)] if self._secure else ["--insecure"]

    def _start(self, name: str, arguments: Sequence[str]) -> Child:
        return self._processes.start(name, [*program.program(), *arguments])

    @staticmethod
    def _name(client: int) -> str:
        return f"edge-{client}"


def _options(settings: Settings) -> list[str]:
    """The settings as options of a command."""
    options = []
    for name, value in settings.as_dict().items():
        if isinstance(value, bool):
            options.append(f"--{name}" if value else f"--no-{name}")
        else:
            options.append(f"--{name}={value}")
    return options
