"""``recast serve --lorawan``: a federation of LoRaWAN devices behind ChirpStack."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from client.data import known_classes
from experiments.command.broker import server_access
from experiments.engines.probe import probe_of
from experiments.logs.callback import Callback
from experiments.logs.watched import watched
from experiments.report.summary import summarise
from experiments.session.simulation import Finished
from protos.lorawan import MOST
from recast_core.errors import RecastError
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks
from server.app import Conditions, run_federation, run_folder
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.opened import check_registry
from server.record.place import registry_path
from server.standing import reserved

logger = logging.getLogger("recast.link")


def check_settings(settings: Settings) -> None:
    """Refuse what does not go over LoRaWAN.

    Raises:
        RecastError: such a setting; what to give in its place.
    """
    wrong = {
        "method": settings.canonical_method() != "recast" and "recast",
        "broadcast-bits": settings.broadcast_bits not in (16, 32) and "16",
        "error-feedback": settings.error_feedback and "no",
        "secure-aggregation": settings.secure_aggregation and "no",
        "head": settings.head_kind not in ("backbone", "local") and "backbone, or local",
    }
    for name, right in wrong.items():
        if right:
            raise RecastError(
                f"--lorawan: a frame of {MOST} bytes has no room for this --{name}: give {right}"
            )
    if settings.bits > 8:
        raise RecastError(f"--lorawan: --bits {settings.bits} does not fit a frame: give 0, or 5")


def serve_lorawan(
    settings: Settings,
    url: str,
    certs: Path,
    devices: int,
    callbacks: Sequence[Callback],
    *,
    forced: bool,
) -> Finished:
    """Wait for devices, and run the federation.

    Args:
        settings: of the run.
        url: of ChirpStack's broker, its path the application's id.
        certs: folder of the certificates.
        devices: to wait for.
        callbacks: are told of rounds and tasks.
        forced: plain text to another machine.

    Raises:
        RecastError: settings that cannot run. Finished rounds stay in the registry.
    """
    if devices < 1:
        raise RecastError(f"{devices} clients: wait for at least 1")
    check_settings(settings)
    parse_tasks(settings.tasks)
    access = server_access(url, certs, forced=forced)
    from server.lorawan import LoraGrid

    folder = run_folder(settings)
    check_registry(registry_path(folder), settings.registry)
    with ExitStack() as stack:
        stack.enter_context(reserved(settings, folder))
        stack.enter_context(server_identity())
        grid = stack.enter_context(LoraGrid(access.url.base, partial(access.broker, None)))
        logger.info("at %s, waiting for %d devices", access.url, devices)
        grid.wait_for_clients(devices)
        began = time.monotonic()
        watch = stack.enter_context(watched(LogObserver(), folder, settings, callbacks))
        conditions = Conditions(
            classes_of=known_classes,
            secret_sampling=True,
            probe_of=partial(probe_of, own=False),
            held=True,
        )
        result = run_federation(grid, settings, folder, watch.observer, conditions=conditions)
        report = summarise(result, "lorawan", settings.seed, time.monotonic() - began)
        watch.finished(report)
    return Finished(result, report)


def airtime_line(account: dict[str, Any]) -> str:
    """What the run took of the air, in a line under the closing table."""
    return (
        f"LoRaWAN: {account['frames_up']} frames up ({account['bytes_up']:,} B, "
        f"{account['airtime_up']:.1f} s on the air), {account['frames_down']} down "
        f"({account['bytes_down']:,} B, {account['airtime_down']:.1f} s); by the duty cycles at "
        f"least {account['days_by_duty_cycle']:.2f} days"
    )
