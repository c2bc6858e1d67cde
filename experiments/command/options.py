"""Command-line options that several commands share. No heavy imports here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from recast_core.errors import RecastError
from recast_core.settings import Settings

if TYPE_CHECKING:
    from recast_core.config import RecastConfig

Command = TypeVar("Command", bound=Callable[..., Any])

_BANK_DEFAULTS: Mapping[str, Any] = {"target": "mlp"}
_SHOWN = {"mlp": "mlp, or conv where there is none"}

FLEET = {
    "availability": (float, "Probability that a client is there in a round."),
    "drop_out": (float, "Probability that an answer is lost after training."),
    "stragglers": (float, "Sigma of the lognormal spread of the clients' speeds."),
    "round_limit": (float, "Simulated seconds after which an answer is lost."),
    "radio": (str, "Uplink: lorawan-dr0 to dr5, nb-iot, lte-m, sms, iridium-sbd."),
}


_BANK_PLAN = {
    "shifts": (
        str,
        "Shifts (fog, fog:4) and families to make sources of, by commas.  [default: all]",
    ),
    "holdout": (str, "Families that no source may see, by commas; the bank is then tried on them."),
    "sources": (int, "Source networks.  [default: 48]"),
    "sections": (int, "Sections of the network, a row of coefficients each.  [default: 4]"),
    "directions": (int, "Directions per section.  [default: 12]"),
    "rank": (int, "Size of the bank: that of directions of this rank.  [default: 32]"),
    "bits": (int, "Of an entry of the bank, 2 to 8.  [default: 4]"),
    "epochs": (int, "Passes of a source over the images.  [default: 6]"),
    "batch": (int, "Images per step of a source.  [default: 64]"),
    "learning-rate": (float, "The highest rate of a source.  [default: 0.001]"),
    "seed": (int, "Of everything.  [default: 0]"),
}


def bank_plan(command: Command) -> Command:
    """Add the options of a BankPlan."""
    return _add_table(command, _BANK_PLAN)


def fleet(command: Command) -> Command:
    """Add the options of a simulated fleet."""
    return _add_table(command, {name.replace("_", "-"): entry for name, entry in FLEET.items()})


def config(command: Command) -> Command:
    """Add the options of a RecastConfig, whose usual target is not that of a run."""
    bank = [field for field in fields(Settings) if field.metadata["bank"]]
    return _add(command, bank, _BANK_DEFAULTS)


def settings(command: Command) -> Command:
    """Add the options of Settings, and --task for one task at a time."""
    return _one_by_one(_add(command, fields(Settings), {}))


bits = click.option(
    "--bits",
    default=8,
    show_default=True,
    help="Width of an update's numbers: 32, 16, or 8 to 1.",
)
preset = click.option(
    "--preset",
    help="A variant of the paper: recast-att, recast-mlp, recast-att+mlp, recast-resnet.",
)
log = click.option(
    "--log",
    multiple=True,
    metavar="KIND:WHERE",
    help="Also tell a logger: csv:FILE, tensorboard:DIR, wandb:PROJECT or mlflow:DIR; may be "
    "repeated.",
)
json_file = click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    help="Write the result to this file as JSON; - is standard output.",
)


def recast_config(values: Mapping[str, Any]) -> RecastConfig:
    """The RecastConfig of the options that were given."""
    from recast_core.config import RecastConfig

    given = dict(values)
    preset = given.pop("preset", None)
    if preset is not None:
        if given:
            raise RecastError(
                f"--preset {preset} with --{next(iter(given))}: give the preset or its parts"
            )
        return RecastConfig.preset(preset)
    return Settings.from_mapping({**_BANK_DEFAULTS, **given}).recast()


def _add_table(command: Command, table: Mapping[str, tuple[type, str]]) -> Command:
    """Add an option for each entry, which says its default in its help."""
    for name, (kind, text) in reversed(list(table.items())):
        command = click.option(f"--{name}", type=kind, default=None, help=text)(command)
    return _given(command)


def _add(
    command: Command, settings: Sequence[Field[Any]], defaults: Mapping[str, object]
) -> Command:
    """Add an option for each setting, which says its default and leaves it to ``Settings``."""
    for field in reversed(settings):
        name, default = field.name.replace("_", "-"), defaults.get(field.name, field.default)
        flag, shown = f"--{name}", f"{default:g}" if isinstance(default, float) else str(default)
        if isinstance(default, bool):
            flag, shown = f"--{name}/--no-{name}", name if default else f"no-{name}"
        shown = _SHOWN.get(shown, shown) if defaults else shown
        text = field.metadata["help"] + (f"  [default: {shown}]" if shown else "")
        kind = type(field.default)
        command = click.option(flag, type=kind, default=None, help=text)(command)
    return _given(command)


def _one_by_one(command: Command) -> Command:
    """Add --task, which takes one task as one text, and hand it on with --tasks."""
    import functools

    @functools.wraps(command)
    def wrapped(task: tuple[str, ...] = (), **values: Any) -> Any:
        if task:
            from recast_core.task_spec import parse_task

            given = [values["tasks"]] if values.get("tasks") else []
            values["tasks"] = " ".join([*given, *(str(parse_task(one)) for one in task)])
        return command(**values)

    text = "One task, whose path may hold spaces and commas; may be repeated."
    option = click.option("--task", multiple=True, metavar="TASK", help=text)
    return option(wrapped)  # type: ignore[return-value]


def _given(command: Command) -> Command:
    """Leave out what the user did not say, so that defaults have one place."""
    import functools

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        return command(**{name: value for name, value in values.items() if value is not None})

    return wrapped  # type: ignore[return-value]
