"""Options from a file and the environment, help in groups, and what is said at once."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from experiments.command.cli import recast
from experiments.command.command_line import RecastCommand
from experiments.command.config_file import read_config
from experiments.command.progress import ProgressObserver
from experiments.command.working import Work, clock
from recast_core.errors import RecastError
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks


def printed(*arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    done = CliRunner().invoke(recast, [*arguments, "--print-config"], env=env, prog_name="recast")
    assert done.exit_code == 0, done.exception
    return tomllib.loads(done.output)


def test_the_command_line_comes_before_the_environment_the_file_and_the_default(
    tmp_path: Path,
) -> None:
    file = tmp_path / "run.toml"
    file.write_text("rounds = 2\nepochs = 3\nbatch = 8\n[simulate]\nclients = 5\nbatch = 9\n")
    told = {"RECAST_ROUNDS": "4", "RECAST_EPOCHS": "5", "RECAST_CONFIG": str(file)}
    found = printed("simulate", "--rounds", "6", env=told)
    assert (found["rounds"], found["epochs"], found["batch"], found["seed"]) == (6, 5, 9, 0)
    assert found["simulate"]["clients"] == 5


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (
            "CLIENTS=x",
            r"Invalid value for 'RECAST_CLIENTS' \('--clients'\): 'x' is not a valid int",
        ),
        ("SECURE_AGGREGATION=perhaps", r"'RECAST_SECURE_AGGREGATION' \('--secure-aggregation'\)"),
        ("ROUNDS=-1", r"rounds is -1: .* \(set in the environment: RECAST_ROUNDS\)$"),
        ("HEAD=none", r"unknown head 'none': .* \(set in the environment: RECAST_HEAD\)$"),
    ],
)
def test_what_is_wrong_in_the_environment_is_said_with_the_variable(value: str, why: str) -> None:
    name, _, text = value.partition("=")
    env = {f"RECAST_{name}": text, "RECAST_EPOCHS": "2"}
    done = CliRunner().invoke(
        recast, ["simulate"], env=env, prog_name="recast", standalone_mode=False
    )
    assert done.exception is not None
    told = getattr(done.exception, "format_message", done.exception.__str__)()
    assert re.search(why, told)
    assert "RECAST_EPOCHS" not in told


@pytest.mark.parametrize("command", ["simulate", "serve", "measure"])
def test_one_file_serves_every_command_and_what_is_printed_is_such_a_file(
    tmp_path: Path, command: str
) -> None:
    odd = 'a=npz:"it\\"s, é.npz" b=digits'
    file = tmp_path / "run.toml"
    file.write_text(
        f"tasks = {json.dumps(odd)}\nskip-unreadable = true\nlearning_rate = 0.5\n"
        "[simulate]\nclients = 3\n[serve]\nclients = 4\n[measure]\nclients = 5\n"
    )
    first = printed(command, "--config", str(file))
    assert first["tasks"] == odd
    assert (first["skip-unreadable"], first["learning-rate"]) == (True, 0.5)
    assert first[command]["clients"] == {"simulate": 3, "serve": 4, "measure": 5}[command]
    done = CliRunner().invoke(recast, [command, "--config", str(file), "--print-config"])
    (tmp_path / "again.toml").write_text(done.output)
    assert printed(command, "--config", str(tmp_path / "again.toml")) == first


def test_each_text_of_a_list_of_tasks_may_hold_spaces(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('tasks = ["folder:my photos+inverted", "digits"]\n')
    told = printed("simulate", "--config", str(file))["tasks"]
    assert [task.data for task in parse_tasks(told)] == ["folder:my photos", "digits"]
    file.write_text('tasks = ["a=digits", "b=digits+fog"]\n')
    assert printed("simulate", "--config", str(file))["tasks"] == "a=digits b=digits+fog"


def test_a_file_given_to_a_run_is_what_the_run_records(
    tmp_path: Path, tiny: Callable[..., Settings], recast: Callable[..., Any]
) -> None:
    settings = tiny(rounds=1, run_dir=str(tmp_path / "run"))
    lines = [f"{name} = {value!r}" for name, value in settings.as_dict().items()
             if not isinstance(value, bool)]  # fmt: skip
    (tmp_path / "run.toml").write_text("\n".join([*lines, "[simulate]", "clients = 2"]))
    done = recast("simulate", "--config", str(tmp_path / "run.toml"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("recast simulate: starting")
    assert "2 clients ready" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("round = 3", "did you mean rounds"),
        ("clients = 3", r"it goes in its table \[simulate\]"),
        ("[simulat]\nclients = 3", "did you mean simulate"),
        ("[simulate]\nclient = 3", "did you mean clients"),
        ("rounds = 3 4", "is no TOML"),
        ("rounds = 1979-05-27", "give a text, a number"),
    ],
)
def test_a_mistake_in_a_file_is_one_error_that_names_the_remedy(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(RecastError, match=said):
        read_config(
            str(tmp_path / "run.toml"), "simulate", {"clients": "clients", "rounds": "rounds"}
        )
    with pytest.raises(RecastError, match="cannot read"):
        read_config(str(tmp_path / "none.toml"), "simulate", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('rounds = "many"', "rounds is 'many': give a whole number"),
        ("rounds = 2.5", "rounds is 2.5: give a whole number"),
        ("bits = true", "bits is True: give a whole number"),
        ("error_feedback = 3", "error-feedback is 3: give true or false"),
        ("learning-rate = [1]", "learning-rate is [1]: give a text, a number"),
        ("aggregation = 7", "aggregation is 7: give a text"),
        ("[simulate]\nbf16 = 3", "bf16 is 3: give true or false"),
        ("[simulate]\nworkers = -3", "workers is -3: -3 is not in the range"),
        ("[simulate]\nlog = 3", "log is 3: give a list of texts"),
    ],
)
def test_a_wrong_type_in_a_file_names_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    done = CliRunner().invoke(recast, ["simulate", "--config", str(file), "--print-config"])
    assert isinstance(done.exception, RecastError)
    assert f"{file}: {said}" in str(done.exception)


def test_the_mark_that_begins_a_text_is_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbfrounds = 3\n")
    options = {"rounds": "rounds"}
    assert read_config(str(tmp_path / "run.toml"), "simulate", options) == {"rounds": 3}


@pytest.mark.parametrize("table", ["", "[simulate]\n"])
def test_an_option_with_dashes_and_with_underscores_is_refused(tmp_path: Path, table: str) -> None:
    text = f"{table}run-dir = 'a'\nrun_dir = 'b'\n"
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    with pytest.raises(RecastError, match="run-dir and run_dir are the same"):
        read_config(str(tmp_path / "run.toml"), "simulate", {"run-dir": "run_dir"})


def test_a_number_in_quotes_is_still_one(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('rounds = "3"\nlearning-rate = 1\n')
    found = printed("simulate", "--config", str(tmp_path / "run.toml"))
    assert (found["rounds"], found["learning-rate"]) == (3, 1.0)


def test_help_has_every_setting_under_a_heading_with_its_default() -> None:
    text = CliRunner().invoke(recast, ["simulate", "--help"]).output
    for heading in ("This command:", "What is adapted:", "Updates:", "The run:", "In and out:"):
        assert heading in text
    own = text[text.index("This command:") : text.index("What is adapted:")]
    for field in fields(Settings):
        name = "--" + field.name.replace("_", "-")
        assert name in text
        assert name not in own.split()


def every_command(group: click.Group = recast, name: str = "recast") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for part in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), part)
        assert command is not None
        within = every_command(command, part) if isinstance(command, click.Group) else {}
        found |= {f"{name} {rest}": each for rest, each in within.items()} or {
            f"{name} {part}": command
        }
    return found


def test_every_row_of_every_help_says_what_it_means() -> None:
    commands = every_command()
    assert len(commands) > 20
    for name, command in commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, f"{name} {parameter.opts}"
        if isinstance(command, RecastCommand):
            text = command.get_help(click.Context(command, info_name=name))
            assert not re.search(r"^  \[?[A-Z]+\]?(\.\.\.)?$", text, re.M), name
            assert ("the file of --config" in " ".join(text.split())) == ("--config " in text), name


def test_a_variable_that_is_almost_an_option_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RECAST_ROUND", "RECAST_DATA", "RECAST_PLUGINS", "RECAST_LISTEN"):
        monkeypatch.setenv(name, "")
    done = CliRunner().invoke(recast, ["simulate", "--print-config"])
    assert [line for line in done.stderr.splitlines() if "RECAST" in line] == [
        "recast: warning: RECAST_ROUND in the environment is no option: did you mean RECAST_ROUNDS?"
    ]


def test_work_says_its_rate_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    work = Work("training", 400)
    assert work.line() == "training: 0 of 400 images"
    work.advance(100)
    now[0] += 10
    assert work.line() == "training: 100 of 400 images, 10/s, 30 s left"
    work.advance(900)
    assert work.share() == 1
    told = [clock(seconds) for seconds in (0.4, 59.6, 3599, 7500)]
    assert told == ["0 s", "1 min 0 s", "59 min 59 s", "2 h 5 min"]


def test_off_a_terminal_long_work_says_so_inside_a_round(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with ProgressObserver(2) as observer:
        observer.round_started("fog", 1, 4, 5)
        observer.began("training", 1000)
        for _ in range(10):
            now[0] += 3
            observer.advanced(50)
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 2
    assert told[0].startswith("fog, round 1 of 4: training: 200 of 1,000 images, 17/s, 48 s left")
