"""Flower's deployment runtime: a SuperLink, a SuperNode for each client, and ``flwr run``."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from experiments.measure.certificates import Certificates, make_certificates, make_node_key
from experiments.measure.processes import Child, Processes
from experiments.measure.relay import LOOPBACK, Relay, Relays, free_port
from recast_core.errors import RecastError
from recast_core.setting_values import Value
from recast_core.settings import Settings

# From flwr 1.40 SuperNodes speak HTTP with the port that the command line uses too.
_HTTP_FROM = (1, 40)
_CONNECTION = "measured"
_NODE_ID = re.compile(r"SuperNode ID: (\d+)")
SECONDS_TO_START = 300.0


class FlowerDeployment:
    """A :class:`~experiments.measure.deployment.Deployment` through Flower's own programs."""

    # Heartbeats of a SuperNode, which polls every few seconds besides.
    period = 30.0

    def __init__(
        self,
        folder: Path,
        relays: Relays,
        clients: int,
        *,
        secure: bool = False,
        node_config: Sequence[dict[str, Value]] | None = None,
        flwr: str | None = None,
        programs: Path | None = None,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            folder: gets logs, keys, caches and Flower's own files.
            relays: where to open a relay for each client.
            clients: how many SuperNodes.
            secure: TLS, and SuperNodes that authenticate with a registered key.
            node_config: of each SuperNode; ``None`` for a partition and a cache folder each.
            flwr: the version of Flower in ``programs``, this process's own where ``None``.
            programs: the folder of Flower's programs, this Python's own where ``None``.
        """
        self._folder = folder
        self._clients = clients
        self._http = _release(flwr or version("flwr")) >= _HTTP_FROM
        self._programs = programs or Path(sys.executable).parent
        self._port = free_port()
        self._fleet = self._port if self._http else free_port()
        self._certificates: Certificates | None = None
        self._secure = secure
        self._node_config = node_config or [
            {
                "partition-id": index,
                "num-partitions": clients,
                "cache-dir": str(folder / "banks" / str(index)),
            }
            for index in range(clients)
        ]
        self._processes = Processes(folder / "logs", self._environment())
        self._superlink: Child | None = None
        self._run: Child | None = None
        self._nodes: dict[int, Child] = {}
        self._settings: Settings | None = None
        self.relays: Sequence[Relay] = [
            relays.open((LOOPBACK, self._fleet)) for _ in range(clients)
        ]

    def start(self, settings: Settings) -> None:
        """Start the SuperLink; a second call starts it again, with what its database kept."""
        self._settings = settings
        self._processes.__enter__()
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [
            self._program("flower-superlink"),
            "--host", LOOPBACK, "--port", str(self._port),
            "--database", str(self._folder / "superlink.sqlite"),
        ]  # fmt: skip
        if not self._http:
            command += ["--fleet-api-address", f"{LOOPBACK}:{self._fleet}"]
        if self._secure:
            if self._certificates is None:
                self._certificates = make_certificates(self._folder / "certificates")
            command += [
                "--ssl-ca-certfile", str(self._certificates.authority),
                "--ssl-certfile", str(self._certificates.certificate),
                "--ssl-keyfile", str(self._certificates.key),
                "--enable-supernode-auth",
            ]  # fmt: skip
        else:
            command.append("--insecure")
        self._write_connection()
        self._superlink = self._processes.start("superlink", command)
        self._superlink.wait_until(self._listens, SECONDS_TO_START, "it listened")

    def join(self, client: int) -> None:
        """Start a SuperNode; return once the SuperLink has given it an id."""
        config = self._node_config[client]
        command = [
            self._program("flower-supernode"),
            "--superlink", self.relays[client].address,
            "--host", LOOPBACK, "--port", str(free_port()),
            "--node-config", " ".join(f"{key}={_toml(value)}" for key, value in config.items()),
        ]  # fmt: skip
        if self._certificates is not None:
            key = self._registered_key(client)
            command += ["--root-certificates", str(self._certificates.authority)]
            command += ["--auth-supernode-private-key", str(key)]
        else:
            command.append("--insecure")
        log = self._folder / "logs" / f"supernode-{client}.log"
        before = len(_NODE_ID.findall(log.read_text())) if log.exists() else 0
        node = self._processes.start(log.stem, command)
        node.wait_until(
            lambda: len(_NODE_ID.findall(node.said())) > before,
            SECONDS_TO_START,
            "the SuperLink gave it an id",
        )
        self._nodes[client] = node

    def begin(self) -> None:
        """Submit the run."""
        assert self._settings is not None
        app = self._folder / "app"
        write_app(app, self._settings)
        self._run = self._processes.start(
            "run", [self._program("flwr"), "run", str(app), _CONNECTION, "--stream"]
        )

    def running(self) -> bool:
        """Whether the run goes on; the registry says how it ended."""
        for child in (self._superlink, *self._nodes.values()):
            if child is not None and not child.running:
                raise child.failure(f"ended with code {child.process.returncode} during the run")
        if self._run is None:
            raise RecastError("no run was begun: call begin first")
        if self._run.running:
            return True
        if self._run.process.returncode:
            raise self._run.failure(f"ended with code {self._run.process.returncode}")
        return False

    def client_id(self, client: int) -> str:
        """The node id, from the SuperNode's log: the last one that it was given."""
        *_, last = _NODE_ID.finditer(self._nodes[client].said())
        return last.group(1)

    def stop_client(self, client: int, kill: bool = False) -> None:
        """End a SuperNode."""
        self._nodes.pop(client).stop(kill)

    def stop_server(self, kill: bool = False) -> None:
        """End the SuperLink; ``start`` starts it again on the same port."""
        assert self._superlink is not None
        self._superlink.stop(kill)
        self._superlink = None

    def stop(self) -> None:
        """End every process that this object started."""
        self._nodes = {}
        self._superlink = None
        self._processes.__exit__(None, None, None)

    def _environment(self) -> dict[str, str]:
        return {
            "FLWR_HOME": str(self._folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_UPDATE_CHECK": "0",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            # Flower's programs start each other by name.
            "PATH": f"{self._programs}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def _program(self, name: str) -> str:
        path = self._programs / name
        found = str(path) if path.exists() else shutil.which(name)
        if found is None:
            raise RecastError(f"no program {name}: install flwr in this environment")
        return found

    def _listens(self) -> bool:
        for port in {self._port, self._fleet}:
            try:
                socket.create_connection((LOOPBACK, port), timeout=1).close()
            except OSError:
                return False
        return True

    def _write_connection(self) -> None:
        home = self._folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        lines = [
            "[superlink]",
            f'default = "{_CONNECTION}"',
            f"[superlink.{_CONNECTION}]",
            f'address = "{LOOPBACK}:{self._port}"',
        ]
        if self._certificates is not None:
            lines.append(f"root-certificates = {_toml(str(self._certificates.authority))}")
        else:
            lines.append("insecure = true")
        (home / "config.toml").write_text("\n".join(lines) + "\n")

    def _registered_key(self, client: int) -> Path:
        private = self._folder / "keys" / f"client-{client}"
        if not private.exists():
            _, public = make_node_key(private.parent, private.name)
            self._processes.run(
                f"register-{client}",
                [self._program("flwr"), "supernode", "register", str(public), _CONNECTION],
            )
        return private


def write_app(folder: Path, settings: Settings) -> None:
    """A Flower app that is nothing but configuration: its code is the installed package."""
    folder.mkdir(parents=True, exist_ok=True)
    config = "\n".join(f"{key} = {_toml(value)}" for key, value in settings.as_dict().items())
    (folder / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\n\n"
        '[project]\nname = "recast-fl"\nversion = "0.1.0"\ndescription = ""\n'
        'license = "Apache-2.0"\ndependencies = []\n\n'
        '[tool.flwr.app]\npublisher = "recast"\n\n'
        '[tool.flwr.app.components]\nserverapp = "server.app:app"\nclientapp = "client.app:app"\n\n'
        f"[tool.flwr.app.config]\n{config}\n"
    )


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)


def _release(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
