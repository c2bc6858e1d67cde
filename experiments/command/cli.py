"""The ``recast`` command. Imports are lazy: ``recast --help`` must not wait for torch."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from experiments.command import (
    bank_command,
    link_commands,
    model_commands,
    record_commands,
    run_commands,
    runs_commands,
    tasks_commands,
)
from experiments.command.aside import Aside
from experiments.command.interrupt import INTERRUPTED, acknowledged
from recast_core.errors import RecastError
from recast_core.plugins import load_plugins

REFUSED = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="recast-fl", prog_name="recast")
def recast() -> None:
    """Federated continual learning at tens of bytes per update.

    Example: recast simulate --clients 20 --seed 0
    """
    load_plugins()


for command in (
    run_commands.simulate,
    model_commands.plan,
    model_commands.mimic,
    bank_command.bank,
    tasks_commands.tasks,
    tasks_commands.predict,
    link_commands.serve,
    link_commands.join,
    link_commands.certs,
    run_commands.measure,
    record_commands.ledger,
    record_commands.report,
    runs_commands.runs,
):
    recast.add_command(command)


def main() -> NoReturn:
    """Run the command; errors that the user can mend are one line and exit code 2."""
    _speak()
    sys.exit(_guarded(_command))


def _command() -> Any:
    # What was said of an interrupt stands before how it ended.
    with acknowledged():
        return recast.main(prog_name="recast", standalone_mode=False)


def _speak() -> None:
    """Let everything be printed on any terminal, and what is logged of data be seen."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    logger = logging.getLogger("recast")
    if not logger.handlers:
        logger.addHandler(Aside())
        logging.getLogger("recast.data").setLevel(logging.INFO)


def _guarded(command: Callable[[], Any]) -> int:
    try:
        result = command()
    except RecastError as error:
        return _complain(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)  # a page, of what could have been given
        return REFUSED
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else _named(sys.argv[1:])
        return _complain(f"{error.format_message()} See `{where} --help`.")
    except click.ClickException as error:
        return _complain(error.format_message())
    except (KeyboardInterrupt, click.Abort) as stop:
        # click turns the interrupt into an Abort that has it for a cause.
        kept = str(stop.__cause__ or "") or "rounds that had finished are in the registry"
        print(f"recast: interrupted; {kept}", file=sys.stderr)
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def _named(words: Sequence[str]) -> str:
    """The command that ``words`` begin with: click does not say whose option lacks its value."""
    path: list[str] = ["recast"]
    command: click.Command = recast
    for word in words:
        found = command.commands.get(word) if isinstance(command, click.Group) else None
        if found is None:
            break
        path, command = [*path, word], found
    return " ".join(path)


def _complain(message: str) -> int:
    print(f"recast: {' '.join(message.split())}", file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    import recast_fl

    recast_fl.main()
