"""``recast measure``: payload, message and wire bytes of a task, by method and transport."""

from __future__ import annotations

import contextlib
import io
import math
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.command.simulate import simulate
from experiments.measure.deployment import Deployment
from experiments.measure.flower import FlowerDeployment
from experiments.measure.link import LinkDeployment
from experiments.measure.mqtt import MqttDeployment
from experiments.measure.phases import RUN, Phase, PhaseClock, record, watch
from experiments.measure.relay import Relay, Relays
from experiments.measure.table import print_tables, ratios
from experiments.session.simulation import ENGINES, Population
from recast_core.errors import RecastError
from recast_core.methods import parse_method
from recast_core.secure.check import check_count
from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.record.registry import Registry

Opener = Callable[[Path, Relays, int, bool], Deployment]
DEPLOYMENTS: dict[str, Opener] = {
    "flower": lambda folder, relays, clients, secure: FlowerDeployment(
        folder, relays, clients, secure=secure
    ),
    "link": lambda folder, relays, clients, secure: LinkDeployment(
        folder, relays, clients, secure=secure
    ),
    "mqtt": lambda folder, relays, clients, secure: MqttDeployment(
        folder, relays, clients, secure=secure
    ),
}


def register_transport(name: str, opener: Opener) -> None:
    """Let ``recast measure --transports`` name a further one.

    Raises:
        RecastError: another transport, or an engine, has the name.
    """
    if name in ENGINES or DEPLOYMENTS.setdefault(name, opener) is not opener:
        raise RecastError(f"there is a transport {name!r} already: choose another name")


MOST_CLIENTS = 32
QUIET_SECONDS = 1.0
WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        methods: values of the setting ``method``.
        transports: keys of ``DEPLOYMENTS``, or engines that put nothing on a wire.
        clients: how many, a process each.
        secure: TLS, and authentication where the transport has it.
        idle: seconds that the idle cost is measured over, rounded up to whole periods of a
            transport; 0 to leave it out.
    """

    methods: Sequence[str]
    transports: Sequence[str]
    clients: int
    secure: bool
    idle: float

    def __post_init__(self) -> None:
        if not 1 <= self.clients <= MOST_CLIENTS:
            raise RecastError(
                f"{self.clients} clients: each is a process here, give 1 to {MOST_CLIENTS}"
            )
        if self.idle < 0:
            raise RecastError(f"an idle window of {self.idle} s: give 0 to leave it out, or more")
        for spec in self.methods:
            parse_method(spec)
        known = (*DEPLOYMENTS, *ENGINES)
        for name in self.transports:
            if name not in known:
                raise RecastError(f"unknown transport {name!r}: choose {', '.join(known)}")


def measure(settings: Settings, plan: Plan) -> dict[str, Any]:
    """Run every method over every transport, print the tables and return the report.

    Args:
        settings: of every run; with a ``run_dir``, everything is kept in folders below it.
        plan: what is measured.

    Raises:
        RecastError: settings that cannot run, or a process that failed; its logs are kept.
    """
    if settings.registry:
        raise RecastError("measure keeps a registry beside each run: leave --registry out")
    check_count(settings, plan.clients)
    # A request to end must run the clean-up too, or processes would be left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report: dict[str, Any] = {"rows": [], "rounds": [], "ratios": [], "connection": []}
    with _folder(settings.run_dir) as folder:
        for transport in plan.transports:
            idle = plan.idle
            for method in plan.methods:
                # As any file system takes it: a method may name a rank and patterns.
                here = folder / re.sub(r"[^\w.-]+", "-", f"{method}-{transport}")
                if here.exists():
                    raise RecastError(f"{here} exists: name a --run-dir that is new")
                run_dir = (here / "run").resolve()
                chosen = replace(settings, method=method, run_dir=str(run_dir))
                if transport in DEPLOYMENTS:
                    found = _measure_wire(chosen, plan, transport, here, idle)
                    idle = 0.0  # the same whatever the method
                else:
                    _say(f"{method} over {transport}: nothing on a wire")
                    with contextlib.redirect_stdout(io.StringIO()):
                        simulate(chosen, Population(plan.clients, transport))
                    found = {}
                rows = rows_of(here / "run" / "registry.sqlite", method, transport)
                report["rows"] += rows
                for name, entries in found.items():
                    label = {"method": method, "transport": transport}
                    report[name] += [label | entry for entry in entries]
    report["ratios"] = ratios(report["rounds"])
    print_tables(report)
    return report


def rows_of(registry: Path, method: str, transport: str) -> list[dict[str, Any]]:
    """A row for each task: bytes per client, from the run's ledger.

    ``bank_down`` is the whole of greeting a client and sending it the bank (on the wire where there
    is one, the bank's messages elsewhere); it is paid once, so the first task has it and the others
    have 0.
    """
    with Registry(registry) as opened:
        ledger = Ledger(opened)
        totals = ledger.totals(RUN)
        by_kind = ledger.totals(RUN, by=("kind", "direction", "layer"))
        clients = len({key[0] for key in ledger.totals(RUN, by=("client", "layer"))})
        first: dict[int, float] = {}
        for entry in opened.accuracies(RUN):
            first.setdefault(entry.task, entry.accuracy)
        tasks = [(task, len(opened.rounds(RUN, task.number))) for task in opened.tasks(RUN)]
    wired = any(layer == "wire" for *_, layer in totals)
    bank = by_kind.get(("bank", "down", "wire" if wired else "message"), 0)
    return [
        {
            "method": method,
            "transport": transport,
            "task": task.name,
            "rounds": rounds,
            **{
                f"{layer}_{direction}": (
                    None
                    if layer == "wire" and not wired
                    else round(totals.get((task.name, direction, layer), 0) / clients)
                )
                for layer in ("payload", "message", "wire")
                for direction in ("up", "down")
            },
            "bank_down": round(bank / clients) if task.number == 1 else 0,
            "accuracy": first.get(task.number),
        }
        for task, rounds in tasks
    ]


def _measure_wire(
    settings: Settings, plan: Plan, transport: str, folder: Path, idle: float
) -> dict[str, list[dict[str, Any]]]:
    registry = Path(settings.run_dir) / "registry.sqlite"
    with Relays() as relays:
        deployment = DEPLOYMENTS[transport](folder, relays, plan.clients, plan.secure)
        try:
            _say(f"{transport}: starting the server")
            deployment.start(settings)
            clock = PhaseClock(deployment.relays)
            for client in range(plan.clients):
                clock.end("control")
                deployment.join(client)
                _wait_for_quiet(deployment.relays[client])
                _say(f"{transport}: client {client + 1} of {plan.clients} has joined")
            # Those who joined before have been idle meanwhile: the last has the clean count.
            connection = [_entry("join", clock.end("control"), last=True)]
            if idle:
                window = deployment.period * math.ceil(idle / deployment.period)
                _say(f"{transport}: idle for {window:.0f} s (with --idle 0 not at all)")
                time.sleep(window)
                waited = clock.end("control")
                connection += [
                    _entry("idle", waited),
                    _entry("idle hour", waited, 3600 / waited.seconds),
                    _entry("reconnect", _reconnect(deployment, clock), last=True),
                ]
            deployment.begin()
            watch(deployment, clock, registry, _say)
            clients = [deployment.client_id(client) for client in range(plan.clients)]
        finally:
            deployment.stop()
    record(registry, clock.phases, clients)
    greeting = next(phase for phase in clock.phases if phase.kind == "bank")
    connection.append(_entry("greeting and bank", greeting))
    names = {"coefficients": "training", "metrics": "evaluation"}
    rounds = [
        {"task": phase.task, "round": phase.round} | _entry(names[phase.kind], phase)
        for phase in clock.phases
        if phase.task is not None
    ]
    return {"connection": connection, "rounds": rounds}


def _reconnect(deployment: Deployment, clock: PhaseClock) -> Phase:
    """Cut the last client off; what it sends and is sent until it has been answered again."""
    relay = deployment.relays[-1]
    _wait_for_quiet(relay)
    clock.end("control")
    before = relay.counted().down
    relay.cut()
    deadline = time.monotonic() + WAIT_SECONDS
    while relay.counted().down == before and time.monotonic() < deadline:
        time.sleep(0.05)
    _wait_for_quiet(relay)
    return clock.end("control")


def _wait_for_quiet(relay: Relay) -> None:
    """Return once nothing has passed for a second."""
    deadline = time.monotonic() + WAIT_SECONDS
    last, since = relay.counted(), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS and time.monotonic() < deadline:
        time.sleep(0.05)
        if relay.counted() != last:
            last, since = relay.counted(), time.monotonic()


def _entry(what: str, phase: Phase, factor: float = 1.0, *, last: bool = False) -> dict[str, Any]:
    """The mean over clients, or the last client alone."""
    counted = phase.counted[-1:] if last else phase.counted
    return {
        "what": what,
        "wire_up": round(factor * sum(one.up for one in counted) / len(counted)),
        "wire_down": round(factor * sum(one.down for one in counted) / len(counted)),
        "seconds": phase.seconds,
    }


@contextlib.contextmanager
def _folder(run_dir: str) -> Iterator[Path]:
    """The folder of all runs: kept where it was named, and where something failed."""
    if run_dir:
        yield Path(run_dir)
        return
    folder = Path(tempfile.mkdtemp(prefix="recast-measure-"))
    try:
        yield folder
    except RecastError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
