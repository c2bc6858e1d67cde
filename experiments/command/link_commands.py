"""The commands of a real federation. Imports are lazy, as in ``experiments.command.cli``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from experiments.command import options
from experiments.command.command_line import FederationCommand, configured

_folder = click.Path(path_type=Path, file_okay=False)
_certs = click.option(
    "--certs",
    type=_folder,
    default=Path("certs"),
    show_default=True,
    help="Folder of the certificates that `recast certs init` made.",
)
_insecure = click.option("--insecure", is_flag=True, help="No TLS; on this machine only.")
_force = click.option("--force-insecure", is_flag=True, hidden=True)
_keepalive = click.option(
    "--keepalive",
    default=240.0,
    show_default=True,
    type=click.FloatRange(10, 7200),
    help="Seconds of silence before the link is probed.",
)
_mqtt = click.option(
    "--mqtt",
    metavar="URL",
    help="Through a broker of MQTT 5: mqtts://[USER@]HOST[:PORT][/TOPIC]. A password is read from "
    "RECAST_MQTT_PASSWORD.",
)
_json_log = click.option("--json-log", is_flag=True, help="Log one JSON object per line.")


@click.command(cls=FederationCommand)
@click.option(
    "--listen", default="127.0.0.1:9441", show_default=True, help="HOST:PORT to listen at."
)
@_mqtt
@click.option(
    "--lorawan",
    metavar="URL",
    help="LoRaWAN devices behind ChirpStack's broker: mqtt://HOST:PORT/APPLICATION_ID.",
)
@click.option("--bank-url", metavar="URL", help="Where clients fetch the bank: http(s)://…")
@click.option("--clients", default=2, show_default=True, help="Wait for this many clients.")
@_certs
@_insecure
@_force
@click.option(
    "--grace",
    default=120.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds that a round waits for a client that is away.",
)
@_keepalive
@_json_log
@click.option(
    "--metrics",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Serve Prometheus metrics at this port of 127.0.0.1.",
)
@click.option("--web", metavar="HOST:PORT", help="Serve a live page of the run here, to read.")
@click.option(
    "--web-token",
    help="That readers of the page must give once; made where none is given and the page is not "
    "for this machine alone. Better as RECAST_WEB_TOKEN.",
)
@click.option("--wait-for", type=click.Path(path_type=Path), hidden=True)
@options.log
@options.settings
@configured
@options.json_file
@click.pass_context
def serve(context: click.Context, /, **values: Any) -> None:
    """Run a federation with clients that `recast join`.

    Example: recast serve --listen 0.0.0.0:9441 --clients 3 --certs certs --tasks "digits"
    """
    _silence_grpc()
    from experiments.command.report_file import report
    from experiments.command.serve import LinkOptions
    from experiments.command.serve import serve as run
    from experiments.logs.table import open_logs
    from recast_core.settings import Settings

    path, logs = values.pop("json_path", None), values.pop("log", ())
    own = {"listen", "clients", "certs", "insecure", "force_insecure", "grace"}
    own |= {"keepalive", "json_log", "metrics", "web", "web_token", "wait_for", "mqtt", "bank_url"}
    own |= {"lorawan"}
    link = LinkOptions(**{name: values.pop(name) for name in own & values.keys()})
    report(path, lambda: run(Settings.from_mapping(values), link, open_logs(logs)))


@click.command(cls=FederationCommand)
@click.argument("server", required=False)
@_mqtt
@click.option(
    "--data", type=_folder, required=True, help="Folder with TASK.npz, or TASK/CLASS/ with images."
)
@click.option("--name", required=True, help="This client's name, and its certificate's.")
@_certs
@click.option(
    "--cache",
    type=_folder,
    help="Where banks are kept.  [default: ~/.cache/recast/banks]",
)
@click.option(
    "--number",
    type=click.IntRange(min=0),
    help="What this client's random generator follows from, from 0.  [default: from its name]",
)
@click.option(
    "--backbone", help="Where the backbone is on this machine.  [default: as the server says]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--skip-unreadable", is_flag=True, help="Go on without images that cannot be read.")
@click.option("--secure-aggregation", is_flag=True, help="Send updates hidden in sums, or none.")
@click.option(
    "--least-sum",
    type=click.IntRange(3, 22),
    help="As --secure-aggregation, and never in a sum of fewer clients; of n clients n*2/3 + 1 may "
    "make one.  [3 without this option]",
)
@_insecure
@_force
@_keepalive
@_json_log
def join(server: str | None, **values: Any) -> int:
    """Take part in a federation until it is finished.

    Example: recast join server.example:9441 --data ~/images --name edge-1 --certs certs
    """
    _silence_grpc()
    from experiments.command.join import JoinOptions
    from experiments.command.join import join as run

    return run(server, JoinOptions(**values))


@click.group()
def certs() -> None:
    """Make certificates for a federation, and revoke them.

    Example: recast certs init certs --server server.example --client edge-1 --client edge-2
    """


@certs.command("init")
@click.argument("folder", type=_folder)
@click.option("--server", "hosts", multiple=True, help="Host or address of the server; repeat.")
@click.option("--client", "names", multiple=True, help="Name of a client; repeat.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@options.json_file
def init(
    folder: Path,
    hosts: tuple[str, ...],
    names: tuple[str, ...],
    force: bool,
    json_path: Path | None,
) -> None:
    """Make an authority, a server certificate and client certificates in FOLDER.

    Example: recast certs init certs --server 192.0.2.7 --client edge-1
    """
    from experiments.command.certs import init as run

    _written(json_path, lambda: run(folder, hosts, names, force=force))


@certs.command("add")
@click.argument("folder", type=_folder)
@click.argument("name")
@click.option("--force", is_flag=True, help="Replace what is there.")
@options.json_file
def add(folder: Path, name: str, force: bool, json_path: Path | None) -> None:
    """Make a certificate for one more client; with --force those it replaces are revoked.

    Example: recast certs add certs edge-3
    """
    from experiments.command.certs import add as run

    _written(json_path, lambda: run(folder, name, force=force))


@certs.command("revoke")
@click.argument("folder", type=_folder)
@click.argument("name")
@click.option("--serial", help="Only the certificate of this hexadecimal number.")
@options.json_file
def revoke(folder: Path, name: str, serial: str | None, json_path: Path | None) -> None:
    """Refuse a client, with every certificate it was ever given, also while the server runs.

    Example: recast certs revoke certs edge-3
    """
    from experiments.command.certs import revoke as run

    _written(json_path, lambda: [run(folder, name, serial)])


@certs.command("list")
@click.argument("folder", type=_folder)
@options.json_file
def list_(folder: Path, json_path: Path | None) -> None:
    """Show every certificate that was ever issued in FOLDER: number, name, day, state.

    Example: recast certs list certs
    """
    from experiments.command.certs import overview

    _written(json_path, lambda: overview(folder), "certificates")


def _silence_grpc() -> None:
    """Keep gRPC's own lines, one for each stranger that knocks, out of the log."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _written(
    json_path: Path | None, work: Callable[[], Sequence[object]], what: str = "files"
) -> None:
    """Print what ``work`` returns, a line each, and write it as JSON."""
    from experiments.command.report_file import report

    def named() -> dict[str, list[str]]:
        lines = [str(line) for line in work()]
        for line in lines:
            click.echo(line)
        return {what: lines}

    report(json_path, named)
