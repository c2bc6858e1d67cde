"""A setting is said once: options, help, run configuration and message follow from it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.objectives import OBJECTIVES
from recast_core.recipe import Recipe
from recast_core.settings import Settings
from recast_core.wire.fields import read_fields, write_fields
from recast_core.wire.messages import Hyperparameters

ROOT = Path(__file__).parents[2]


def help_of(command: str) -> str:
    """Every option in a line of its own, whatever its length."""
    from experiments.command.cli import recast

    options = recast.commands[command].to_info_dict(recast.make_context("recast", [command]))
    return "\n".join(f"{'/'.join(p['opts'])} {p.get('help')}" for p in options["params"])


def test_every_setting_is_an_option_with_its_help_and_default() -> None:
    lines = help_of("simulate").splitlines()
    for field in fields(Settings):
        name = field.name.replace("_", "-")
        (line,) = [row for row in lines if row.split()[0] == f"--{name}"]
        assert field.metadata["help"] in line
        default = field.default
        if isinstance(default, bool):
            assert f"[default: {'' if default else 'no-'}{name}]" in line
        elif default != "":
            shown = f"{default:g}" if isinstance(default, float) else default
            assert f"[default: {shown}]" in line


def test_a_command_that_makes_a_bank_alone_takes_what_describes_one() -> None:
    text = help_of("plan")
    assert "--target" in text
    assert "[default: mlp, or conv where there is none]" in text
    assert "--epochs" not in text


def test_no_command_has_two_options_of_one_name() -> None:
    from experiments.command.cli import recast

    def look(command: click.Command, path: str) -> None:
        names = [p.name for p in command.params]
        flags = [flag for p in command.params for flag in (*p.opts, *p.secondary_opts)]
        assert len(set(names)) == len(names), path
        assert len(set(flags)) == len(flags), path
        for name, inner in getattr(command, "commands", {}).items():
            look(inner, f"{path} {name}")

    look(recast, "recast")


def test_an_option_that_is_not_given_is_left_to_the_settings() -> None:
    from experiments.command import options

    seen: dict[str, object] = {}

    @click.command()
    @options.settings
    def command(**values: object) -> None:
        seen.update(values)

    done = CliRunner().invoke(command, ["--epochs", "3", "--no-baseline"])
    assert done.exit_code == 0, done.output
    assert seen == {"epochs": 3, "baseline": False}


@pytest.mark.parametrize("command", [[], ["simulate"], ["plan"], ["serve"], ["join"]])
def test_help_waits_for_nothing_heavy(command: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['recast', *{command}, '--help']\n"
        "from experiments.command.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'flwr', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_training_setting_travels_and_no_field_of_the_message_is_forgotten() -> None:
    sent = set(pb.Hyperparameters.DESCRIPTOR.fields_by_name)
    assert {field.name for field in fields(Hyperparameters)} == sent
    assert {field.name for field in fields(Recipe)} <= sent
    settings = Settings(
        epochs=7, batch=5, learning_rate=0.25, bits=3, seed=9, rounding="stochastic",
        error_feedback=True, head="local",
    )  # fmt: skip
    told = settings.hyperparameters()
    for name, value in {
        "epochs": 7, "batch": 5, "learning_rate": 0.25, "bits": 3, "seed": 9,
        "stochastic": True, "error_feedback": True,
    }.items():  # fmt: skip
        assert getattr(told, name) == value
    message = pb.Hyperparameters()
    write_fields(told, message)
    assert message.objective == pb.OBJECTIVE_SPLIT_RIDGE
    content = message.SerializeToString()
    assert read_fields(Hyperparameters, pb.Hyperparameters.FromString(content)) == told


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_has_a_number_on_the_wire(objective: str) -> None:
    message = pb.Hyperparameters()
    write_fields(Hyperparameters(objective=objective), message)
    assert message.objective == OBJECTIVES.index(objective)
    assert read_fields(Hyperparameters, message).objective == objective


def test_no_rate_is_the_customary_one_of_the_method() -> None:
    assert Settings().hyperparameters().learning_rate == 2e-2
    assert Settings(method="full").hyperparameters().learning_rate == 1e-4


def test_a_choice_by_name_costs_bytes_only_where_it_is_made() -> None:
    @dataclass(frozen=True)
    class Chosen:
        name: str = "usual"
        id: int = 1

    for choice in (Chosen(), Chosen("other"), Chosen("usual", 0)):
        message = pb.Task()
        write_fields(choice, message)
        assert b"usual" not in message.SerializeToString()
        assert read_fields(Chosen, message) == choice


def test_a_setting_that_is_unknown_or_does_not_fit_is_refused_with_a_near_name() -> None:
    with pytest.raises(RecastError, match="did you mean epochs"):
        Settings.from_mapping({"epoch": 3})
    for wrong, wanted in (
        ({"epochs": "many"}, "a whole number"),
        ({"epochs": 2.5}, "a whole number"),
        ({"deadline": "soon"}, "a number"),
        ({"residual": "perhaps"}, "true or false"),
    ):
        with pytest.raises(RecastError, match=f"give {wanted}"):
            Settings.from_mapping(wrong)
    assert Settings.from_mapping({"baseline": "false"}).baseline is False
    assert Settings.from_mapping({"residual": True, "epochs": 3.0}).epochs == 3
    assert Settings.from_mapping({"learning-rate": "0.5"}).learning_rate == 0.5
