"""``recast serve``: a federation over the lean link, until its tasks are learned."""

from __future__ import annotations

import logging
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from experiments.command.caution import warn_of_many
from experiments.command.console import print_summary
from experiments.command.link_log import address_of, check_insecure, set_up
from experiments.command.link_view import LinkView
from experiments.command.metrics import serve_metrics
from experiments.report.summary import summarise
from protos.link import MAX_REPLY
from recast_core.backbones import load_backbone
from recast_core.errors import RecastError
from recast_core.settings import Settings, Value
from recast_core.start import Start
from recast_core.task_spec import parse_tasks
from recast_core.wire.codec import encoded_length
from server.app import run_federation, run_folder
from server.flower import server_identity
from server.link import LinkGrid, ServerKeys
from server.link.grid import RUN_ID
from server.record.ledger import Ledger
from server.record.registry import Registry

logger = logging.getLogger("recast.link")
# These speak of the server's own machine.
_PRIVATE = {"run-dir", "device"}


def serve(
    settings: Settings,
    *,
    listen: str,
    clients: int,
    certs: Path,
    insecure: bool,
    force_insecure: bool,
    grace: float,
    keepalive: float,
    json_log: bool,
    metrics: int | None,
    begin: Path | None = None,
) -> dict[str, Any]:
    """Wait for clients, run the federation, print its closing table and return its report.

    With ``begin`` the run begins when that file exists, and not before.

    Raises:
        RecastError: settings that cannot run. Finished rounds stay in the registry.
    """
    if clients < 1:
        raise RecastError(f"{clients} clients: wait for at least 1")
    parse_tasks(settings.tasks)
    address_of(listen)
    if insecure:
        check_insecure(listen, forced=force_insecure)
    keys = None if insecure else ServerKeys.load(certs)
    backbone = load_backbone(settings.backbone)
    model_bytes = 4 * sum(
        parameter.numel()
        for name, parameter in backbone.model.named_parameters()
        if not name.startswith(f"{backbone.head}.")
    )
    set_up(as_json=json_log)
    signal.signal(signal.SIGTERM, _stop)
    folder = run_folder(settings)
    made: list[tuple[Start, int]] = []

    def started(bank: Start, run: int) -> None:
        longest = encoded_length(bank.sent, settings.bits)
        if longest > MAX_REPLY:
            raise RecastError(
                f"an update of {longest:,} bytes, the link carries {MAX_REPLY:,}: use another "
                "method or fewer bits, or Flower's deployment"
            )
        if bank.template_count:
            warn_of_many(bank.trained)
        made.append((bank, run))

    with ExitStack() as stack:
        stack.enter_context(server_identity(RUN_ID))
        grid = stack.enter_context(
            LinkGrid(
                listen,
                keys,
                for_clients(settings),
                deadline=settings.deadline,
                grace=grace,
                keepalive=keepalive,
            )
        )
        if metrics is not None:
            stack.enter_context(serve_metrics(metrics, grid.sessions))
        view = stack.enter_context(LinkView(grid.sessions, plain=json_log))
        logger.info("listening at %s, waiting for %d clients", grid.address, clients)
        grid.wait_for_clients(clients)
        while begin is not None and not begin.exists():
            time.sleep(0.05)
        began = time.monotonic()
        run_federation(grid, settings, folder, view, started)
    (bank, run) = made[0]
    with Registry(folder / "registry.sqlite") as registry:
        report = summarise(registry, run, bank, "link", settings.seed, time.monotonic() - began)
        by_kind = Ledger(registry).totals(run, by=("kind", "layer"))
    print_summary(report, model_bytes, by_kind.get(("bank", "payload"), 0))
    print(f"registry: {folder / 'registry.sqlite'}")
    return report


def for_clients(settings: Settings) -> dict[str, Value]:
    """The settings that a client is told when it joins."""
    return {name: value for name, value in settings.as_dict().items() if name not in _PRIVATE}


def _stop(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
