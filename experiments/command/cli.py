"""The ``recast`` command. Imports are lazy: ``recast --help`` must not wait for torch."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from experiments.command import (
    bank_command,
    link_commands,
    options,
    report_file,
    tasks_commands,
)
from recast_core.errors import RecastError
from recast_core.plugins import load_plugins

INTERRUPTED = 130
REFUSED = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="recast-fl", prog_name="recast")
def recast() -> None:
    """Federated continual learning at tens of bytes per update.

    Example: recast simulate --clients 20 --seed 0
    """
    load_plugins()


@recast.command()
@click.option("--clients", default=20, show_default=True, help="Simulated clients.")
@click.option(
    "--engine",
    default="folded",
    show_default=True,
    help="folded (all clients as one batch), sequential (one by one) or ray (Flower's).",
)
@click.option("--bf16", is_flag=True, help="Folded: products in bfloat16; close, not equal.")
@click.option("--compile", "compiled", is_flag=True, help="Folded: torch.compile the model.")
@options.fleet
@options.settings
@options.json_file
def simulate(
    clients: int,
    engine: str,
    bf16: bool,
    compiled: bool,
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
    from recast_core.settings import Settings

    told = {name: values.pop(name) for name in options.FLEET if name in values}
    fleet = Fleet(**told) if told else None
    settings = Settings.from_mapping(values)
    report_file.report(
        json_path, lambda: run(settings, clients, engine, fleet, bf16=bf16, compiled=compiled)
    )


@recast.command()
@click.argument("backbone")
@click.option("--budget", type=int, help="List the methods whose update has at most so many bytes.")
@click.option(
    "--labels", type=int, help="With --budget: labelled images in the whole fleet; -1 is all."
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="With --budget: a file of results in place of those that the package carries.",
)
@options.config
@options.preset
@options.bits
@options.json_file
def plan(
    backbone: str,
    bits: int,
    budget: int | None = None,
    labels: int | None = None,
    results: Path | None = None,
    json_path: Path | None = None,
    **values: Any,
) -> None:
    """Say how many coefficients a configuration has, and what its bank and updates weigh.

    With --budget (recast plan resnet34:IMAGENET1K_V1 --budget 51): which methods' updates fit,
    best first by what was measured.

    Example: recast plan file:vit_small.safetensors --target mlp --groups 6
    """
    if budget is not None:
        if values:
            raise RecastError(
                f"--budget with --{next(iter(values))}: leave it out, every method is looked at"
            )
        from experiments.command.plan_budget import plan_budget

        known = -1 if labels is None else labels
        report_file.report(json_path, lambda: plan_budget(backbone, budget, known, results))
        return
    if labels is not None or results is not None:
        raise RecastError("--labels and --results go with --budget: give the bytes of an update")
    from experiments.command.plan import plan as run

    report_file.report(json_path, lambda: run(backbone, options.recast_config(values), bits))


@recast.command()
@click.argument("backbone")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the bank here.")
@click.option(
    "--method",
    default="closed-form",
    show_default=True,
    help="closed-form, gradient, vae, seeded, or all to compare them.",
)
@click.option("--data", default="", help="Compare features on 64 images of this DATA.")
@options.config
@options.preset
@options.json_file
def mimic(
    backbone: str,
    method: str,
    data: str,
    output: Path | None = None,
    json_path: Path | None = None,
    **values: Any,
) -> None:
    """Turn a pretrained backbone into a template bank.

    Example: recast mimic resnet34:IMAGENET1K_V1 --target conv -o bank.safetensors
    """
    from experiments.command.mimic import mimic as run

    report_file.report(
        json_path, lambda: run(backbone, options.recast_config(values), method, output, data)
    )


recast.add_command(bank_command.bank)
recast.add_command(tasks_commands.tasks)
recast.add_command(tasks_commands.predict)
recast.add_command(link_commands.serve)
recast.add_command(link_commands.join)
recast.add_command(link_commands.certs)


@recast.command()
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
    "--idle", default=60.0, show_default=True, help="Seconds to measure the idle cost; 0 for none."
)
@options.settings
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


@recast.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--number", type=int, help="Which run of the registry; the last if not given.")
@click.option("--csv", type=click.Path(path_type=Path), help="Write every row as CSV.")
@click.option("--parquet", type=click.Path(path_type=Path), help="Write every row as Parquet.")
@options.json_file
def ledger(
    run: Path,
    number: int | None = None,
    csv: Path | None = None,
    parquet: Path | None = None,
    json_path: Path | None = None,
) -> None:
    """Say what each task of the run in folder RUN cost, and export the rows.

    A row is one message at one layer: payload (what the method has to say), message (serialised)
    or wire (what a relay counted, in runs of `recast measure`).

    Example: recast ledger runs/20260101-120000 --csv ledger.csv
    """
    from experiments.command.ledger import ledger as show

    report_file.report(json_path, lambda: show(run, number, csv, parquet))


@recast.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the page here.")
@click.option("--run-id", type=int, help="Of the registry's runs; the last one if not given.")
@click.option(
    "--compare",
    multiple=True,
    type=click.Path(path_type=Path),
    help="JSON of `recast measure` or of studies.methods_alone; may be repeated.",
)
@options.json_file
def report(
    run: Path | None,
    output: Path | None,
    run_id: int | None,
    compare: tuple[Path, ...],
    json_path: Path | None = None,
) -> None:
    """Show a run as one HTML page that loads nothing.

    RUN is a run folder or its registry; the newest folder under runs/ if not given. The page goes
    beside the registry unless -o says otherwise; with --json alone only the numbers are written.

    Example: recast report runs/20260101-120000 -o report.html --compare measure.json
    """
    from experiments.report import report as make

    report_file.report(
        json_path,
        lambda: make(run, output, run_id, compare, page=output is not None or not json_path),
    )


def main() -> NoReturn:
    """Run the command; errors that the user can mend are one line and exit code 2."""
    _speak()
    code = _guarded(lambda: recast.main(prog_name="recast", standalone_mode=False))
    sys.exit(code)


class _Aside(logging.Handler):
    """Prints what is logged on standard error, whatever that is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _speak() -> None:
    """Let everything be printed on any terminal, and what is logged of data be seen."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    logger = logging.getLogger("recast")
    if not logger.handlers:
        logger.addHandler(_Aside())
        logging.getLogger("recast.data").setLevel(logging.INFO)


def _names(text: str) -> list[str]:
    return [name for name in text.replace(",", " ").split() if name]


def _guarded(command: Callable[[], Any]) -> int:
    try:
        result = command()
    except RecastError as error:
        return _complain(str(error))
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "recast"
        return _complain(f"{error.format_message()} See `{where} --help`.")
    except click.ClickException as error:
        return _complain(error.format_message())
    except (KeyboardInterrupt, click.Abort) as stop:
        # click turns the interrupt into an Abort that has it for a cause.
        kept = str(stop.__cause__ or "") or "rounds that had finished are in the registry"
        print(f"recast: interrupted; {kept}", file=sys.stderr)
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def _complain(message: str) -> int:
    print(f"recast: {' '.join(message.split())}", file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    import recast_fl

    recast_fl.main()
