"""``recast join``: this machine as a client of a federation over the lean link."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.app import app
from client.link import ClientKeys, Endpoint, LinkClient, LocalApp
from client.link.conversation import Conversation
from experiments.command.broker import client_access
from experiments.command.join_view import JoinView
from experiments.command.link_log import check_insecure, set_up
from protos.link import is_name
from recast_core.errors import RecastError
from recast_core.pulse import hearing, listening
from recast_core.setting_values import Value
from recast_core.settings import Settings

logger = logging.getLogger("recast.link")
STOP_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class JoinOptions:
    """Who joins, and how.

    Attributes:
        data: folder with a file or folder for each task.
        name: of this client, and of its certificate.
        certs: folder of the certificates.
        cache: where banks are kept; ``None`` for the user's own cache.
        number: that this client's random generator depends on; ``None`` for one from its name.
        backbone: where it is on this machine, ``None`` for where the run says.
        device: ``auto``, ``cpu`` or ``cuda``.
        skip_unreadable: go on without images that cannot be read.
        insecure: no TLS, to a server on this machine.
        force_insecure: to any.
        keepalive: seconds of silence before the link is probed.
        json_log: log JSON objects.
        secure_aggregation: send no update that is not hidden in a sum, whatever the server asks.
        mqtt: URL of a broker through which the server is reached; ``None`` for directly.
        least_sum: clients that any sum with its update must be of; with it none is sent openly.
    """

    data: Path
    name: str
    certs: Path
    cache: Path | None
    number: int | None
    backbone: str | None
    device: str
    skip_unreadable: bool
    insecure: bool
    force_insecure: bool
    keepalive: float
    json_log: bool
    secure_aggregation: bool = False
    mqtt: str | None = None
    least_sum: int | None = None

    def check(self) -> None:
        """Find out what the ClientApp would only find out after it has joined.

        Raises:
            RecastError: a name, folder or device that cannot be used.
        """
        if not is_name(self.name):
            raise RecastError(
                f"{self.name!r} is no name: use up to 64 letters, digits, dots and dashes"
            )
        if not self.data.is_dir():
            raise RecastError(
                f"no folder {self.data}: name the one with this client's tasks with --data"
            )
        Settings(device=self.device)

    def endpoint(self, server: str) -> Endpoint:
        """The server, with this client's keys.

        Raises:
            RecastError: keys that cannot be used, or none where they are needed.
        """
        if self.insecure:
            check_insecure(server, forced=self.force_insecure)
        keys = None if self.insecure else ClientKeys.load(self.certs, self.name)
        return Endpoint(server, keys, self.keepalive)

    def local(self) -> LocalApp:
        """The ClientApp with this machine's folders."""
        cache = self.cache or _default_cache()
        config: dict[str, Value] = {
            "data-dir": str(self.data),
            "cache-dir": str(cache),
            "client-number": number_of(self.name) if self.number is None else self.number,
        }
        if self.backbone is not None:
            config["backbone"] = self.backbone
        certificate = self.certs / f"{self.name}.pem"
        if not self.insecure and (self.mqtt is None or certificate.exists()):
            config["certificate"] = str(certificate)
        if self.skip_unreadable:
            config["skip-unreadable"] = True
        if self.least_sum is not None:
            config["least-sum"] = self.least_sum
        here: dict[str, Value] = {"device": self.device}
        if self.secure_aggregation:
            here["secure-aggregation"] = True
        return LocalApp(app, config, cache, here)


def join(server: str | None, options: JoinOptions) -> int:
    """Take part until the run is finished; returns the exit code. The process ends after it.

    Args:
        server: ``HOST:PORT``; ``None`` where the options name a broker.
        options: who joins, and how.

    Raises:
        RecastError: what the user can mend, or the server's refusal.
    """
    if (server is None) == (options.mqtt is None):
        raise RecastError("name the server, HOST:PORT, or its broker with --mqtt, and not both")
    options.check()
    view = JoinView()
    make = _client(server, options, view)
    set_up(as_json=options.json_log)
    where = server or options.mqtt
    logger.info("joining %s as %s, with the images in %s", where, options.name, options.data)
    client = make()
    with (
        listening(view),
        hearing(view.learned, everywhere=True),
        asyncio.Runner(loop_factory=_Loop) as runner,
    ):
        stopped = runner.run(_until_stopped(client))
    logger.info("stopped" if stopped else "the run is finished")
    if client.busy:
        # A training cannot be interrupted, and nobody is left to take its answer.
        logging.shutdown()
        sys.stderr.flush()
        os._exit(0)
    return 0


def number_of(name: str) -> int:
    """The client number that follows from a name where none is given."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _client(server: str | None, options: JoinOptions, view: JoinView) -> Callable[[], Conversation]:
    """What makes the client; a mistake in the options shows at once."""
    if options.mqtt is None:
        assert server is not None
        endpoint = options.endpoint(server)
        return lambda: LinkClient(endpoint, options.name, options.local(), heard=view.heard)
    access = client_access(
        options.mqtt,
        options.certs,
        options.name,
        keepalive=options.keepalive,
        forced=options.force_insecure,
    )
    from client.mqtt import MqttClient

    return lambda: MqttClient(access, options.name, options.local(), heard=view.heard)


class _Loop(asyncio.SelectorEventLoop):
    """Hears signals until it is closed; one that comes later finds a process that ends anyway.

    As it is, that one would kill the process, which then says that it failed.
    """

    def remove_signal_handler(self, sig: int) -> bool:
        """Have the signal do nothing from now on."""
        signal.signal(sig, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        return True


async def _until_stopped(client: Conversation) -> bool:
    """Run the client; ``True`` if a signal ended it."""
    work = asyncio.ensure_future(client.run())
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    waiting = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    while not work.done():
        # A library below may lose a cancellation; nothing may lose the user's.
        work.cancel()
        await asyncio.wait({work}, timeout=STOP_AGAIN_SECONDS)
    if work.cancelled():
        return True
    work.result()
    return False


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "recast" / "banks"
