"""The commands that run clients here: simulate and measure. Imports are lazy, as in ``cli``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from experiments.command import options, report_file
from experiments.command.command_line import FederationCommand, configured
from recast_core.errors import RecastError


@click.command(cls=FederationCommand)
@click.option("--clients", default=20, show_default=True, help="Simulated clients.")
@click.option(
    "--engine",
    default="folded",
    show_default=True,
    help="folded (all clients as one batch), sequential (one by one) or ray (Flower's).",
)
@click.option("--bf16", is_flag=True, help="Folded: products in bfloat16; close, not equal.")
@click.option("--compile", "compiled", is_flag=True, help="Folded: torch.compile the model.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    help="Folded: processes that share the clients, on a GPU each where there are several.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    default="",
    help="Folded: workers on the Ray cluster at this address; with --workers alone it is that of "
    "the variable RAY_ADDRESS, if there is one.",
)
@options.fleet
@options.log
@options.settings
@configured
@options.json_file
def simulate(
    clients: int,
    engine: str,
    bf16: bool,
    compiled: bool,
    workers: int,
    ray: str,
    log: tuple[str, ...] = (),
    json_path: Path | None = None,
    **values: Any,
) -> None:
    """Learn tasks with simulated clients and report accuracy and bytes.

    Example: recast simulate --tasks "digits digits+inverted" --rounds 3 --json run.json
    """
    if clients < 1:
        raise RecastError(f"{clients} clients: give at least 1")
    from experiments.command.simulate import simulate as run
    from experiments.engines.fleet import Fleet
    from experiments.logs.table import open_logs
    from experiments.session.simulation import Population
    from recast_core.settings import Settings

    told = {name: values.pop(name) for name in options.FLEET if name in values}
    fleet = Fleet(**told) if told else None
    settings = Settings.from_mapping(values)
    if workers and not ray:
        ray = os.environ.get("RAY_ADDRESS", "")
    people = Population(clients, engine, fleet, bf16, compiled, workers, ray)
    report_file.report(json_path, lambda: run(settings, people, open_logs(log)))


@click.command(cls=FederationCommand)
@click.option(
    "--methods",
    default="recast",
    show_default=True,
    help="By commas: recast, head, lora, norm, full.",
)
@click.option(
    "--transports",
    default="flower,link,sequential",
    show_default=True,
    help="By commas: link (recast serve and join), flower (SuperLink and SuperNodes), or an "
    "engine, which has no wire.",
)
@click.option("--clients", default=2, show_default=True, help="Clients, a process each.")
@click.option("--tls/--no-tls", default=False, help="TLS, and clients that authenticate.")
@click.option(
    "--idle",
    default=60.0,
    show_default=True,
    help="Seconds to measure the idle cost, rounded up to whole periods of what an idle transport "
    "repeats, 240 on the link; 0 for none.",
)
@options.settings
@configured
@options.json_file
def measure(
    methods: str,
    transports: str,
    clients: int,
    tls: bool,
    idle: float,
    json_path: Path | None = None,
    **values: Any,
) -> None:
    """Run real federations on this machine and count what each task puts on the wire.

    Every client is a process behind a relay that counts TCP payload: TLS, headers, polling and
    heartbeats included.

    Example: recast measure --transports flower,link --clients 2 --rounds 3 --json bytes.json
    """
    # What gRPC has to say of a child that goes is nothing that a user can mend.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from experiments.measure.run import Plan
    from experiments.measure.run import measure as run
    from recast_core.settings import Settings

    plan = Plan(_names(methods), _names(transports), clients, tls, idle)
    report_file.report(json_path, lambda: run(Settings.from_mapping(values), plan))


def _names(text: str) -> list[str]:
    return [name for name in text.replace(",", " ").split() if name]
