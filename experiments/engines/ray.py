"""Flower's own simulation: the same ServerApp and ClientApp on Ray actors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid, ServerApp

from recast_core.errors import RecastError
from recast_core.settings import Settings
from recast_fl import hidden

Found = TypeVar("Found")


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
    if (message := hidden(Path.cwd())) is not None:
        raise RecastError(f"{message}; Ray's workers search the current folder first")


def run_on_ray(
    federation: Callable[[Grid], Found], client_app: ClientApp, clients: int, settings: Settings
) -> Found:
    """Run ``federation`` on Flower's grid with ``clients`` simulated nodes; what it returns.

    Raises:
        RecastError: whatever ``check_ray`` or the federation raises.
    """
    check_ray()
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

    run_config = settings.as_dict()

    def configured(message: Message, context: Context, call: ClientAppCallable) -> Message:
        # run_simulation has no run config of its own to hand to clients, and refuses a context
        # that comes back with another one.
        before, context.run_config = context.run_config, dict(run_config)
        try:
            return call(message, context)
        finally:
            context.run_config = before

    logging.getLogger("flwr").setLevel(logging.ERROR)
    app = ClientApp()
    for action, function in client_app._registered_funcs.items():
        app._registered_funcs[action] = _with_mod(configured, function)
    run_simulation(
        server_app,
        app,
        num_supernodes=clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    if failed:
        raise failed[0]
    if not found:
        raise RecastError("Flower's simulation ended before the federation: look at its log above")
    return found[0]


def _with_mod(
    mod: Callable[[Message, Context, ClientAppCallable], Message], function: ClientAppCallable
) -> ClientAppCallable:
    return lambda message, context: mod(message, context, function)
