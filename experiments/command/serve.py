"""``recast serve``: a federation over the lean link, until its tasks are learned."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from client.data import known_classes
from experiments.command.broker import server_access
from experiments.command.console import print_closing
from experiments.command.link_log import address_of, check_insecure, set_up
from experiments.command.link_view import LinkView
from experiments.command.metrics import serve_metrics
from experiments.command.serve_lorawan import airtime_line, serve_lorawan
from experiments.engines.probe import probe_of
from experiments.logs.callback import Callback
from experiments.logs.watched import watched
from experiments.report.summary import summarise
from experiments.session.simulation import Finished
from experiments.web.launch import live_page
from recast_core.backbones import load_backbone
from recast_core.errors import RecastError
from recast_core.secure.check import check_count
from recast_core.setting_values import Value
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks
from recast_core.text import how_many
from server.app import Conditions, RunResult, ended_untold, run_federation, run_folder
from server.flower import server_identity
from server.link import LinkGrid, ServerKeys
from server.link.session_grid import SessionGrid
from server.link.web_bank import WebBank
from server.record.farewell import farewell_given
from server.record.opened import check_registry
from server.record.place import registry_path
from server.standing import reserved

if TYPE_CHECKING:
    from server.mqtt.grid import BrokerAccess

logger = logging.getLogger("recast.link")
# These speak of the server's own machine.
_PRIVATE = {"run-dir", "device", "registry", "ledger"}
# Where a server listens unless it is told.
LISTEN = "127.0.0.1:9441"
# A client that has been cut off looks for the server again within two minutes.
FAREWELL_SECONDS = 150.0


@dataclass(frozen=True)
class LinkOptions:
    """How a server is reached, and how it speaks of itself.

    Attributes:
        listen: ``HOST:PORT``.
        mqtt: URL of a broker, in place of ``listen``; ``None`` for none.
        lorawan: URL of ChirpStack's broker, its path the application's id, in place of ``listen``.
        bank_url: where clients fetch the bank; ``None`` for from here, or from the broker.
        clients: to wait for.
        certs: folder of the certificates.
        insecure: no TLS, on this machine.
        force_insecure: on any.
        grace: seconds that a round waits for a client that is away.
        keepalive: seconds of silence before the link is probed.
        json_log: log JSON objects.
        metrics: port of Prometheus metrics, ``None`` for none.
        web: ``HOST:PORT`` of a live page, ``None`` for none.
        web_token: that its readers must give.
        wait_for: the run begins when this file exists, and not before.
    """

    listen: str
    clients: int
    certs: Path
    insecure: bool
    force_insecure: bool
    grace: float
    keepalive: float
    json_log: bool
    metrics: int | None = None
    web: str | None = None
    web_token: str | None = None
    wait_for: Path | None = None
    mqtt: str | None = None
    bank_url: str | None = None
    lorawan: str | None = None

    @property
    def transport(self) -> str:
        """What reports call it."""
        return "link" if self.mqtt is None else "mqtt"

    def opener(self, settings: Settings) -> Callable[[], SessionGrid]:
        """What makes the grid; a mistake in the options shows at once.

        Raises:
            RecastError: keys or addresses that cannot be used.
        """
        bank = None if self.bank_url is None else WebBank(self.bank_url)
        told = for_clients(settings)
        if self.mqtt is not None:
            access = server_access(self.mqtt, self.certs, forced=self.force_insecure)
            return lambda: _mqtt_grid(access, told, settings.deadline, self.grace, bank)
        address_of(self.listen)
        keys = self.keys()
        return lambda: LinkGrid(
            self.listen,
            keys,
            told,
            deadline=settings.deadline,
            grace=self.grace,
            keepalive=self.keepalive,
            bank=bank,
        )

    def check(self, settings: Settings) -> None:
        """Refuse what would do nothing beside something else.

        Raises:
            RecastError: the first that would.
        """
        if self.mqtt is not None and self.listen != LISTEN:
            raise RecastError(
                "--mqtt and --listen: clients come through the broker; leave --listen out"
            )
        if self.mqtt is not None and self.insecure:
            raise RecastError(
                "--mqtt and --insecure: the broker's URL says it, mqtts:// with TLS and mqtt:// "
                "without; leave --insecure out"
            )
        method = settings.canonical_method()
        if self.bank_url is not None and method != "recast":
            raise RecastError(f"--bank-url: method {method} has no bank; leave --bank-url out")

    def keys(self) -> ServerKeys | None:
        """The server's keys, ``None`` without TLS.

        Raises:
            RecastError: they cannot be read, or plain text where it may not be.
        """
        if not self.insecure:
            return ServerKeys.load(self.certs)
        check_insecure(self.listen, forced=self.force_insecure)
        return None


def serve(
    settings: Settings, options: LinkOptions, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Wait for clients, run the federation, print its closing table and return its report.

    Raises:
        RecastError: settings that cannot run. Finished rounds stay in the registry.
    """
    done = run_server(settings, options, callbacks)
    print_closing(done.report, done.result, settings.backbone)
    if account := done.report.get("lorawan"):
        print(airtime_line(account))
    return done.report


def run_server(
    settings: Settings, options: LinkOptions, callbacks: Sequence[Callback] = ()
) -> Finished:
    """Wait for clients and run the federation.

    Args:
        settings: of the run.
        options: how it is reached.
        callbacks: are told of rounds and tasks.

    Raises:
        RecastError: settings that cannot run. Finished rounds stay in the registry.
    """
    if options.lorawan is not None:
        return _over_lorawan(settings, options, callbacks)
    folder = run_folder(settings)
    make_grid = _checked(settings, options, folder)
    set_up(as_json=options.json_log)
    if settings.labels > 0:
        logger.warning("labels is for simulated clients: these have the labels that their data has")
    if settings.partition != Settings.partition:
        logger.warning("partition is for simulated clients: these have images of their own")
    if options.web_token and options.web is None:
        logger.warning("web-token has no effect: there is no live page without --web")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    with ExitStack() as stack:
        stack.enter_context(reserved(settings, folder))
        ended = ended_untold(settings, folder)
        stack.enter_context(server_identity())
        grid = stack.enter_context(make_grid())
        if options.metrics is not None:
            stack.enter_context(serve_metrics(options.metrics, grid.sessions))
        if ended is not None:
            _tell_finished(grid, options.clients, ended)
            return Finished(ended, summarise(ended, options.transport, settings.seed, 0.0))
        view = stack.enter_context(
            LinkView(grid.sessions, plain=options.json_log, registry=registry_path(folder))
        )
        if options.web is not None:
            path = registry_path(folder)
            stack.enter_context(live_page(options.web, options.web_token, path, view.snapshot))
        clients = how_many(options.clients, "client")
        logger.info("listening at %s, waiting for %s", grid.address, clients)
        grid.wait_for_clients(options.clients)
        while options.wait_for is not None and not options.wait_for.exists():
            time.sleep(0.05)
        began = time.monotonic()
        watch = stack.enter_context(watched(view, folder, settings, callbacks))
        result = run_federation(
            grid,
            settings,
            folder,
            watch.observer,
            conditions=Conditions(
                classes_of=known_classes,
                secret_sampling=True,
                probe_of=partial(probe_of, own=False),
                held=True,
            ),
        )
        view.run_finished()
        report = summarise(result, options.transport, settings.seed, time.monotonic() - began)
        watch.finished(report)
    return Finished(result, report)


def _checked(settings: Settings, options: LinkOptions, folder: Path) -> Callable[[], SessionGrid]:
    """What makes the grid; a mistake shows before anyone is waited for."""
    if options.clients < 1:
        raise RecastError(f"{options.clients} clients: wait for at least 1")
    check_count(settings, options.clients)
    parse_tasks(settings.tasks)
    options.check(settings)
    opener = options.opener(settings)
    check_registry(registry_path(folder), settings.registry)
    load_backbone(settings.backbone)
    return opener


def _over_lorawan(
    settings: Settings, options: LinkOptions, callbacks: Sequence[Callback]
) -> Finished:
    beside = {"mqtt": options.mqtt, "web": options.web, "metrics": options.metrics}
    beside |= {"bank-url": options.bank_url, "insecure": options.insecure or None}
    beside |= {"listen": None if options.listen == LISTEN else options.listen}
    if given := [name for name, value in beside.items() if value is not None]:
        raise RecastError(f"--lorawan has no --{given[0]}: leave it out")
    set_up(as_json=options.json_log)
    return serve_lorawan(
        settings,
        str(options.lorawan),
        options.certs,
        options.clients,
        callbacks,
        forced=options.force_insecure,
    )


def _mqtt_grid(
    access: BrokerAccess,
    told: Mapping[str, Value],
    deadline: float,
    grace: float,
    bank: WebBank | None,
) -> SessionGrid:
    from server.mqtt import MqttGrid

    return MqttGrid(access, told, deadline=deadline, grace=grace, bank=bank)


def _tell_finished(grid: SessionGrid, clients: int, ended: RunResult) -> None:
    """Tell those who come back that their run is over: the server ended before it could."""
    logger.info("listening at %s to tell clients that run %d is finished", grid.address, ended.run)
    told = grid.bid_farewell(clients, FAREWELL_SECONDS)
    farewell_given(ended.folder)
    logger.info("run %d is finished: told %s", ended.run, how_many(told, "client"))


def for_clients(settings: Settings) -> dict[str, Value]:
    """The settings that a client is told when it joins."""
    return {name: value for name, value in settings.as_dict().items() if name not in _PRIVATE}


def _stop(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
