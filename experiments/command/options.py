"""Command-line options that several commands share. No heavy imports here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from recast_core.errors import RecastError

if TYPE_CHECKING:
    from recast_core.config import RecastConfig

Command = TypeVar("Command", bound=Callable[..., Any])

# Defaults stay with recast_core.settings.Settings: an option that is not given is not passed on.
_CONFIG = {
    "target": (str, "attn, mlp, attn+mlp, conv, or module-name patterns with commas."),
    "groups": (int, "Groups for each kind of layer; 0 is one."),
    "templates": (int, "Templates per group; 0 is one per layer, which is exact."),
    "sets": (int, "Coefficient sets K; their mean is sent."),
    "basis": (str, "own (the layers' own weights) or orthonormal."),
    "residual": (bool, "Add combinations to the backbone's own weights."),
}
_RUN = {
    "source": (str, "closed-form, gradient, vae or seeded: where templates come from."),
    "backbone": (str, "glyph_resnet20, a torchvision NAME:WEIGHTS, or file:PATH."),
    "tasks": (str, 'DATA specifications, e.g. "digits digits+inverted npz:flowers.npz".'),
    "rounds": (int, "Rounds per task."),
    "epochs": (int, "Local passes per round."),
    "batch": (int, "Images per local step."),
    "learning-rate": (float, "Of what trains; 0 is the method's customary rate."),
    "head": (
        str,
        "local or linear (stay on their client), means, ridge or shared (merged), or backbone (the "
        "deployed network's own, kept).",
    ),
    "statistics": (str, "frozen, or recompute: BatchNorms by each client's own images, if better."),
    "bits": (int, "Width of an update's numbers: 32, 16, or 8 to 1."),
    "partition": (str, "iid, dirichlet:ALPHA, shards:CLASSES or natural."),
    "labels": (int, "Labelled training images in the whole simulated fleet; -1 is all."),
    "seed": (int, "Of everything."),
    "device": (str, "auto, cpu or cuda."),
    "run-dir": (str, "Where the registry goes; an unfinished run in it is continued."),
    "parallel-tasks": (int, "Tasks learned in the same rounds; 1 is one after another."),
    "clients-per-round": (int, "Clients that train a task in a round; 0 is all."),
    "deadline": (float, "Seconds that a round may take."),
    "quorum": (str, "Updates that close a round early: all, a count (5) or a share (0.8)."),
    "keep-running": (bool, "Wait for `recast tasks add` when all tasks are learned."),
    "method": (str, "recast, head-only, norm-affine, lora[:RANK], full, ...: what trains."),
    "bank": (str, "A bank's file, in place of making one."),
    "broadcast-bits": (int, "Width of a broadcast's numbers: 32, 16, or 8 to 1."),
    "rounding": (str, "nearest or stochastic: of an update's numbers."),
    "error-feedback": (bool, "Add to an update what rounding took from the one before."),
    "baseline": (bool, "Where heads travel, also learn one on the backbone as it came."),
    "skip-unreadable": (bool, "Go on without images in folders that cannot be read."),
    "aggregation": (str, "How updates become the next coefficients: mean."),
    "transforms": (str, "What clients do to an update before it leaves, such as clip:0.5."),
}

FLEET = {
    "availability": (float, "Probability that a client is there in a round."),
    "drop_out": (float, "Probability that an answer is lost after training."),
    "stragglers": (float, "Sigma of the lognormal spread of the clients' speeds."),
    "round_limit": (float, "Simulated seconds after which an answer is lost."),
    "radio": (str, "Uplink: lorawan-dr0 to dr5, nb-iot, lte-m, sms, iridium-sbd."),
}


_BANK_PLAN = {
    "shifts": (str, "Shifts (fog, fog:4) and families to make sources of, by commas; all."),
    "holdout": (str, "Families that no source may see, by commas; the bank is then tried on them."),
    "sources": (int, "Source networks (48)."),
    "sections": (int, "Sections of the network, a row of coefficients each (4)."),
    "directions": (int, "Directions per section (12)."),
    "rank": (int, "Size of the bank: that of directions of this rank (32)."),
    "bits": (int, "Of an entry of the bank, 2 to 8 (4)."),
    "epochs": (int, "Passes of a source over the images (6)."),
    "batch": (int, "Images per step of a source (64)."),
    "learning-rate": (float, "The highest of a source (0.001)."),
    "seed": (int, "Of everything (0)."),
}


def bank_plan(command: Command) -> Command:
    """Add the options of a BankPlan."""
    return _add(command, _BANK_PLAN)


def fleet(command: Command) -> Command:
    """Add the options of a simulated fleet."""
    return _add(command, {name.replace("_", "-"): entry for name, entry in FLEET.items()})


def config(command: Command) -> Command:
    """Add the options of a RecastConfig."""
    return _add(command, _CONFIG)


def settings(command: Command) -> Command:
    """Add the options of Settings, and --task for one task at a time."""
    return _one_by_one(_add(command, _RUN | _CONFIG))


bits = click.option("--bits", default=8, show_default=True, help=_RUN["bits"][1])
preset = click.option(
    "--preset",
    help="A variant of the paper: recast-att, recast-mlp, recast-att+mlp, recast-resnet.",
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
    from recast_core.settings import Settings

    given = dict(values)
    preset = given.pop("preset", None)
    if preset is not None:
        if given:
            raise RecastError(
                f"--preset {preset} with --{next(iter(given))}: give the preset or its parts"
            )
        return RecastConfig.preset(preset)
    defaults = {"target": "mlp"} | given
    return Settings.from_mapping(defaults).recast()


def _add(command: Command, table: Mapping[str, tuple[type, str]]) -> Command:
    for name, (kind, text) in reversed(list(table.items())):
        flag = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
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
