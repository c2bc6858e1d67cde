"""The ``recast`` command. Imports are lazy: ``recast --help`` must not wait for torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from experiments import link_commands, options
from recast_core.errors import RecastError

INTERRUPTED = 130
REFUSED = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="recast-fl", prog_name="recast")
def recast() -> None:
    """Federated continual learning at tens of bytes per update.

    Example: recast simulate --clients 20 --seed 0
    """


@recast.command()
@click.option("--clients", default=20, show_default=True, help="Simulated clients.")
@click.option(
    "--engine",
    default="sequential",
    show_default=True,
    help="sequential (this process, one client after another) or ray (Flower's simulation).",
)
@options.settings
@options.json_file
def simulate(clients: int, engine: str, json_path: Path | None = None, **values: Any) -> None:
    """Learn tasks with simulated clients and report accuracy and bytes.

    Example: recast simulate --tasks "digits digits+inverted" --rounds 3 --json run.json
    """
    if clients < 1:
        raise RecastError(f"{clients} clients: give at least 1")
    from experiments.simulate import simulate as run
    from recast_core.settings import Settings

    write_report(json_path, run(Settings.from_mapping(values), clients, engine))


@recast.command()
@click.argument("backbone")
@options.config
@options.preset
@options.bits
@options.json_file
def plan(backbone: str, bits: int, json_path: Path | None = None, **values: Any) -> None:
    """Say how many coefficients a configuration has, and what its bank and updates weigh.

    Example: recast plan file:vit_small.safetensors --target mlp --groups 6
    """
    from experiments.plan import plan as run

    write_report(json_path, run(backbone, options.recast_config(values), bits))


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
    from experiments.mimic import mimic as run

    write_report(json_path, run(backbone, options.recast_config(values), method, output, data))


for command in link_commands.COMMANDS:
    recast.add_command(command)


def main() -> NoReturn:
    """Run the command; errors that the user can mend are one line and exit code 2."""
    code = _guarded(lambda: recast.main(prog_name="recast", standalone_mode=False))
    sys.exit(code)


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
    except (KeyboardInterrupt, click.Abort):
        print("recast: interrupted; rounds that had finished are in the registry", file=sys.stderr)
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def _complain(message: str) -> int:
    print(f"recast: {' '.join(message.split())}", file=sys.stderr)
    return REFUSED


def write_report(path: Path | None, report: dict[str, Any]) -> None:
    """Write a command's result where ``--json`` said, if it did."""
    if path is None:
        return
    text = json.dumps(report, indent=2) + "\n"
    if str(path) == "-":
        click.echo(text, nl=False)
    else:
        from recast_core.bank_file import write_atomically

        write_atomically(path, text.encode())


if __name__ == "__main__":
    main()
