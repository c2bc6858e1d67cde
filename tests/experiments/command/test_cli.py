"""The `recast` command: its JSON, its one-line errors, and what an interrupt leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import recast_core.backbones
from experiments.command import cli
from experiments.command.program import program
from recast_core import TemplateBank
from recast_core.settings import Settings
from recast_core.task_spec import parse_task
from server.record.ledger import Ledger
from server.record.registry import Registry
from tests.experiments.ends import LONG

if TYPE_CHECKING:
    from conftest import Simulated

ROOT = Path(__file__).parents[3]
TASK_KEYS = {
    "name", "classes", "clients", "rounds", "coefficients", "accuracy", "median_accuracy",
    "head_only_accuracy",
    "update_bytes", "payload_bytes_up", "payload_bytes_down", "message_bytes_up",
    "message_bytes_down",
}  # fmt: skip
D = 8  # of the tiny backbone: two templates for two layers, and four of their own


def test_the_report_of_a_simulation_is_as_documented(simulated: Simulated) -> None:
    report = simulated.report
    assert report.keys() == {
        "bank", "tasks", "forgetting", "engine", "seed", "seconds", "round_seconds",
    }  # fmt: skip
    (path,) = simulated.folder.glob("bank-*.safetensors")
    bank = TemplateBank.load(path)
    assert report["bank"] == {
        "sha256": bank.sha256.hex(),
        "bytes": path.stat().st_size,
        "templates": 6,
        "coefficients": D,
    }
    assert [task["name"] for task in report["tasks"]] == ["a", "b"]
    for task in report["tasks"]:
        assert task.keys() == TASK_KEYS
        assert (task["classes"], task["clients"], task["rounds"]) == (3, 2, 2)
        assert task["coefficients"] == D
        assert 0.4 < task["accuracy"] <= 1
        assert 0.4 < task["head_only_accuracy"] <= 1
        assert D < task["update_bytes"] <= 51
        assert task["payload_bytes_up"] == 2 * 2 * D
        # The first broadcast is the bank's start, which travels as nothing; the evaluations follow.
        assert task["payload_bytes_down"] >= 2 * 2 * 2 * D
        assert task["message_bytes_up"] > task["payload_bytes_up"]
        assert task["message_bytes_down"] > task["payload_bytes_down"]
    assert report["forgetting"] == {"max_abs_change": 0.0}
    assert (report["engine"], report["seed"]) == ("sequential", 0)
    assert 0 < report["round_seconds"] < report["seconds"]


def test_the_report_agrees_with_the_registry(simulated: Simulated) -> None:
    with Registry(simulated.folder / "registry.sqlite") as registry:
        (run,) = registry.runs()
        assert run.status == "finished"
        assert run.config["tasks"] == registry.runs()[0].config["tasks"]
        assert {"flwr", "torch", "recast-fl"} <= run.versions.keys()
        totals = Ledger(registry).totals(run.id)
        for task in simulated.report["tasks"]:
            for layer in ("payload", "message"):
                for direction in ("up", "down"):
                    wanted = totals[task["name"], direction, layer]
                    assert task[f"{layer}_bytes_{direction}"] == wanted
        assert Ledger(registry).refusals(run.id) == {}


def test_a_simulation_says_what_it_did_without_warnings(simulated: Simulated) -> None:
    assert "What each task gained" in simulated.stdout
    assert str(simulated.folder / "registry.sqlite") in simulated.stdout.replace("\n", "")
    assert "2 clients ready, bank sent to 2" in simulated.stderr
    assert "Warning" not in simulated.stderr
    assert "WARNING" not in simulated.stderr


def call(*args: str) -> int:
    """Run the command in this process; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recast", *args])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def backbone(tiny: Callable[..., Settings]) -> list[str]:
    settings = tiny()
    return [settings.backbone, "--target", settings.target]


def test_plan_says_what_an_update_weighs(
    backbone: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    assert call("plan", *backbone, "--sets", "2", "--bits", "5", "--json", str(path)) == 0
    plan = json.loads(path.read_text())
    assert plan.keys() == {
        "trained", "sent", "templates", "groups", "bank_bytes", "update_bytes", "fits",
    }  # fmt: skip
    assert (plan["trained"], plan["sent"], plan["templates"], plan["groups"]) == (16, D, 6, 5)
    assert 5 < plan["update_bytes"] <= 51
    assert "LoRaWAN DR0" in plan["fits"]
    out = capfd.readouterr()
    assert out.err == ""
    assert "LoRaWAN DR0" in out.out
    assert call("plan", *backbone, "--json", "-") == 0
    assert '"sent": 8' in capfd.readouterr().out


def test_mimic_writes_a_bank_and_says_how_faithful_it_is(
    backbone: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, report = tmp_path / "bank.safetensors", tmp_path / "mimic.json"
    assert call("mimic", *backbone, "-o", str(path), "--json", str(report)) == 0
    found = json.loads(report.read_text())
    assert found.keys() == {"method", "relative_error", "cosine", "seconds", "sha256"}
    assert found["method"] == "closed-form"
    assert found["relative_error"] < 1e-5
    assert found["cosine"] == pytest.approx(1, abs=1e-5)
    assert TemplateBank.load(path, bytes.fromhex(found["sha256"])).sent == D
    lossy = tmp_path / "lossy.json"
    assert call("mimic", *backbone, "--templates", "1", "--basis", "orthonormal",
                "--json", str(lossy)) == 0  # fmt: skip
    assert json.loads(lossy.read_text())["relative_error"] > 0.1
    capfd.readouterr()


@pytest.mark.parametrize("command", ["plan", "mimic"])
def test_more_than_fifty_coefficients_are_a_warning(
    command: str, backbone: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(command, *backbone, "--sets", "7") == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("recast: warning: 56 coefficients are trained, more than 50")
    assert call(command, *backbone, "--sets", "6") == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("command", ["plan", "mimic"])
def test_layers_that_share_templates_with_none_are_a_warning(
    command: str, backbone: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(command, *backbone, "--target", "layer1.0.conv1,layer1.0.conv2") == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("recast: warning: each group has one layer and one template")
    assert call(command, *backbone, "--target", "layer1.0.conv*") == 0
    assert capfd.readouterr().err == ""


Broken = Callable[[Path], list[str]]


def corrupt(folder: Path) -> list[str]:
    path = folder / "corrupt.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{not json at all")
    return ["mimic", f"file:{path}", "-o", str(folder / "out" / "bank.safetensors")]


def truncated(folder: Path) -> list[str]:
    path = folder / "cut.safetensors"
    weights = next((Path(recast_core.backbones.__file__).parent / "weights").glob("*.safetensors"))
    path.write_bytes(weights.read_bytes()[:-100])
    return ["plan", f"file:{path}"]


def with_tiny(*args: str) -> Broken:
    return lambda folder: ["simulate", "--run-dir", str(folder / "run"), *args]


BAD: dict[str, tuple[Broken, str]] = {
    "no command": (lambda _: ["simulte"], "simulte"),
    "no argument": (lambda _: ["mimic"], "Missing argument 'BACKBONE'"),
    "unknown option": (lambda _: ["plan", "resnet18", "--bogus"], "--bogus"),
    "no number": (lambda _: ["simulate", "--rounds", "many"], "'many' is not a valid int"),
    "unknown backbone": (lambda _: ["plan", "resnet43"], "resnet34"),
    "unknown weights": (lambda _: ["plan", "resnet34:IMAGENET"], "IMAGENET1K_V1"),
    "no file": (lambda folder: ["plan", f"file:{folder}/none.safetensors"], "no weights at"),
    "corrupt file": (corrupt, "cannot read"),
    "truncated file": (truncated, "cannot read"),
    "unknown target": (lambda _: ["plan", "glyph_resnet20", "--target", "atn"], "attn"),
    "unknown basis": (lambda _: ["plan", "glyph_resnet20", "--basis", "fourier"], "orthonormal"),
    "odd bits": (lambda _: ["plan", "glyph_resnet20", "--bits", "9"], "choose one of 32, 16"),
    "unknown method": (lambda _: ["mimic", "glyph_resnet20", "--method", "magic"], "closed-form"),
    "unwritable output": (
        lambda folder: ["mimic", "glyph_resnet20", "--target", "conv", "-o", "/proc/no/bank"],
        "choose a folder that can be written",
    ),
    "zero clients": (with_tiny("--clients", "0"), "give at least 1"),
    "unknown engine": (with_tiny("--engine", "sequentail"), "did you mean sequential?"),
    "unknown data": (with_tiny("--tasks", "digts"), "did you mean digits or"),
    "no data": (with_tiny("--tasks", "npz:/none.npz"), "no file /none.npz"),
    "unknown partition": (with_tiny("--partition", "even"), "use iid"),
    "unknown head": (with_tiny("--head", "magic"), "unknown head"),
    "zero rounds": (with_tiny("--rounds", "0"), "give at least 1"),
    "negative rate": (with_tiny("--learning-rate", "-1"), "give a number of 0 or more"),
    "unknown device": (with_tiny("--device", "abacus"), "choose auto, cpu or cuda"),
    "fewer classes than two": (
        with_tiny("--tasks", "digits@3-3"), "images of one class only",
    ),
    "no run": (lambda folder: ["ledger", str(folder)], "name the folder of a run"),
    "no value": (
        lambda _: ["tasks", "export", "day", "-o"], "See `recast tasks export --help`.",
    ),
    "unknown transport": (lambda _: ["measure", "--transports", "pigeon"], "choose flower"),
    "too many processes": (lambda _: ["measure", "--clients", "1000"], "give 1 to 32"),
    "registry in the way": (
        lambda folder: ["simulate", "--run-dir", str(blocked(folder))], "name a folder for the run",
    ),
}  # fmt: skip


def blocked(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD[what]
    args = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert call(*args) == 2
    out = capfd.readouterr()
    lines = [line for line in out.err.splitlines() if line.startswith("recast: ")]
    assert len(lines) == 1, out.err
    assert message in lines[0]
    # A run that got as far as greeting its clients has told of that too, in lines of its own.
    if args[0] != "simulate":
        assert out.err.splitlines() == lines
    assert "Traceback" not in out.err + out.out
    left = [p for p in tmp_path.rglob("*") if p not in before and not in_run(p, tmp_path)]
    assert left == []


def in_run(path: Path, folder: Path) -> bool:
    """A run that started keeps its registry and its whole bank, nothing temporary."""
    names = {"run", "registry.sqlite", "registry.sqlite-wal", "registry.sqlite-shm",
             "server.lock"}  # fmt: skip
    whole = path.name in names or path.match("bank-*.safetensors")
    return (folder / "run") in (path, *path.parents) and whole


def test_an_error_of_the_real_command_is_one_line(
    recast: Callable[..., Any], backbone_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "corrupt.safetensors"
    path.write_bytes(backbone_file.read_bytes()[:1000])
    done = recast("mimic", f"file:{path}", "-o", str(tmp_path / "bank.safetensors"))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"recast: cannot read .*\n", done.stderr)
    assert list(tmp_path.iterdir()) == [path]


def test_help_has_an_example_and_does_not_wait_for_torch() -> None:
    script = (
        "import sys\n"
        "from experiments.command.cli import recast\n"
        "for name in ('', 'simulate', 'plan', 'mimic', 'bank', 'measure', 'ledger', 'report'):\n"
        "    recast.main([*name.split(), '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'flwr', 'numpy', 'sqlalchemy'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Example: recast") == 8


def test_an_interrupt_keeps_the_finished_rounds(
    tiny: Callable[..., Settings], command_line: Callable[[Settings], list[str]], tmp_path: Path
) -> None:
    settings = tiny(rounds=100_000, run_dir=str(tmp_path / "run"))
    process = subprocess.Popen(
        [*program(), "simulate", "--clients", "2",
         *command_line(settings)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell may have told its background jobs to ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("a round 2:"):
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=LONG)
    assert process.returncode == 130, rest
    assert (
        rest.splitlines()[-1] == "recast: interrupted; rounds that had finished are in the registry"
    )
    assert "Traceback" not in "".join(seen) + rest
    with Registry(tmp_path / "run" / "registry.sqlite") as registry:
        (run,) = registry.runs()
        assert run.status == "interrupted"
        rounds = registry.rounds(run.id, 1)
        assert [entry.round for entry in rounds] == list(range(1, len(rounds) + 1))
        assert len(rounds) >= 2
        assert np.isfinite(registry.coefficients(run.id, 1)).all()
    assert not list((tmp_path / "run").glob(".*"))


def test_tasks_may_be_given_one_at_a_time_with_any_path(
    tmp_path: Path, recast: Callable[..., Any], tiny: Callable[..., Settings],
    command_line: Callable[[Settings], list[str]],
) -> None:  # fmt: skip
    first = parse_task(tiny().tasks.split()[0]).data.partition(":")[2]
    odd = tmp_path / "my photos, 2+noisy@0-1"
    odd.mkdir()
    (odd / "a+b.npz").write_bytes(Path(first).read_bytes())
    done = recast(
        "simulate", "--clients", "2", *command_line(tiny(rounds=1)),
        "--tasks", f"a=npz:{first}", "--task", f"b=npz:{odd / 'a+b.npz'}",
        "--task", f'npz:"{odd / "a+b.npz"}"@0-1+inverted', "--run-dir", str(tmp_path / "run"),
        "--json", "-",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [task["name"] for task in json.loads(done.stdout)["tasks"]] == [
        "a", "b", "a-b-0-1-inverted",
    ]  # fmt: skip
    again = recast("tasks", "show", "b", "--run", str(tmp_path / "run"), "--json", "-")
    assert parse_task(json.loads(again.stdout)["source"]).data == f"npz:{odd / 'a+b.npz'}"


@pytest.mark.parametrize("group", ["", "runs", "tasks", "certs"])
def test_a_group_without_a_command_shows_its_page_and_ends_with_2(
    group: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["recast", *group.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Usage: recast")
    assert "\nCommands:\n" in said
