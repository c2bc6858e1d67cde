"""Flower's own simulation: the same ServerApp and ClientApp on Ray actors."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from recast_core.errors import RecastError
from recast_core.settings import Settings

Found = TypeVar("Found")
# Ray's own are up to ten times as short, and a machine that has much else to do misses them.
_PATIENCE = {
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
}


def check_ray() -> None:
    """Find out whether Flower's simulation can run here.

    Raises:
        RecastError: Ray is not installed, or its workers would find other packages than ours in the
            current folder, which they search first.
    """
    if find_spec("ray") is None:
        raise RecastError(
            "the ray engine needs Ray: `pip install 'recast-fl[ray]'`, or use --engine sequential"
        )
    from recast_fl import hidden

    if (message := hidden(Path.cwd())) is not None:
        raise RecastError(f"{message}; Ray's workers search the current folder first")


def give_time() -> None:
    """Let what this process starts of Ray take its time, unless the environment says otherwise."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)


def run_on_ray(
    federation: Callable[[Grid], Found],
    client_app: ClientApp,
    clients: int,
    settings: Settings,
    caches: Path,
) -> Found:
    """Run ``federation`` on Flower's grid with ``clients`` simulated nodes; what it returns.

    Args:
        federation: the server.
        client_app: of every node.
        clients: how many nodes.
        settings: of the run.
        caches: a folder, in which each client keeps its bank in one named by its partition.

    Raises:
        RecastError: whatever ``check_ray`` or the federation raises.
    """
    check_ray()
    give_time()
    from flwr.simulation import run_simulation

    failed: list[BaseException] = []
    found: list[Found] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            found.append(federation(grid))
        except BaseException as error:
            failed.append(error)

    logging.getLogger("flwr").setLevel(logging.ERROR)
    run_simulation(
        server_app,
        _Configured(client_app, settings, caches),
        num_supernodes=clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    if failed:
        raise failed[0]
    if not found:
        raise RecastError("Flower's simulation ended before the federation: look at its log above")
    return found[0]


class _Configured(ClientApp):
    """A ClientApp that is given the run config which ``run_simulation`` cannot hand to clients."""

    def __init__(self, inner: ClientApp, settings: Settings, caches: Path) -> None:
        super().__init__()
        self._inner, self._run_config, self._caches = inner, settings.as_dict(), caches

    def __call__(self, message: Message, context: Context) -> Message:
        """What the inner app answers; Flower refuses a context that comes back changed."""
        before, context.run_config = context.run_config, dict(self._run_config)
        own = context.node_config
        cache = self._caches / str(own["partition-id"])
        context.node_config = {**own, "simulated": True, "cache-dir": str(cache)}
        try:
            return self._inner(message, context)
        finally:
            context.run_config, context.node_config = before, own
