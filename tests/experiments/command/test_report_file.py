"""JSON is alone on standard output, whoever prints what meanwhile, and is JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from experiments.command.report_file import report
from recast_core.errors import RecastError
from recast_core.settings import Settings

if TYPE_CHECKING:
    from conftest import Simulated

ROOT = Path(__file__).parents[3]
Recast = Callable[..., Any]


def test_everything_else_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> dict[str, Any]:
        print("a print")
        os.write(1, b"a descriptor\n")
        subprocess.run([sys.executable, "-c", "print('a process')"], check=True)
        return {"nan": float("nan"), "list": [float("inf"), 1.5], "text": "\u00e9"}

    report(Path("-"), work)
    told = capfd.readouterr()
    assert json.loads(told.out) == {"nan": None, "list": [None, 1.5], "text": "\u00e9"}
    assert told.out.isascii()
    for line in ("a print", "a descriptor", "a process"):
        assert line in told.err


def test_standard_output_is_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> dict[str, Any]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        report(Path("-"), work)
    os.write(1, b"back\n")
    print("back")
    assert capfd.readouterr().out == "back\nback\n"


def _commands(
    simulated: Simulated, settings: Settings, options: list[str], tmp: Path
) -> dict[str, Any]:
    run, few = str(simulated.folder), [*options, "--rounds", "1", "--epochs", "1"]
    data = settings.tasks.split()[1].partition("=")[2]
    bank = ("--target", settings.target)
    return {
        "simulate": ("simulate", "--clients", "2", *few, "--run-dir", str(tmp / "r")),
        "sequential": (
            "simulate", "--clients", "2", "--engine", "sequential", *few,
            "--run-dir", str(tmp / "s"),
        ),
        "measure": (
            "measure", "--clients", "2", "--transports", "sequential", "--idle", "0", *few,
            "--run-dir", str(tmp / "m"),
        ),
        "plan": ("plan", settings.backbone, *bank),
        "mimic": (
            "mimic", settings.backbone, "-o", str(tmp / "b.safetensors"), "--data", data, *bank,
        ),
        "ledger": ("ledger", run, "--csv", str(tmp / "l.csv")),
        "report": ("report", run, "-o", str(tmp / "r.html")),
        "list": ("tasks", "list", "--run", run),
        "show": ("tasks", "show", "b", "--run", run),
        "export": (
            "tasks", "export", "b", "-o", str(tmp / "m.safetensors"), "--run", run, "--data", data,
        ),
        "certs": ("certs", "init", str(tmp / "certs"), "--server", "127.0.0.1", "--client", "a"),
        "certs add": ("certs", "add", str(tmp / "certs"), "b"),
        "certs revoke": ("certs", "revoke", str(tmp / "certs"), "b"),
    }  # fmt: skip


def test_every_command_writes_json_alone(
    simulated: Simulated, tiny: Callable[..., Settings], tmp_path: Path, recast: Recast,
    command_line: Callable[[Settings], list[str]],
) -> None:  # fmt: skip
    def foreign(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    options = command_line(tiny())
    for name, arguments in _commands(simulated, tiny(), options, tmp_path).items():
        done = recast(*arguments, "--json", "-", folder=tmp_path)
        assert done.returncode == 0, (name, done.stderr)
        assert isinstance(json.loads(done.stdout), dict), name
        json.loads(done.stdout, parse_constant=foreign)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_predict_prints_any_name_on_any_terminal(
    simulated: Simulated, tmp_path: Path, encoding: str
) -> None:
    import numpy as np
    from PIL import Image

    names = ("\u732b", "sm\u00f8rrebr\u00f8d \u2026", "\U0001f98a")
    for place, name in enumerate(names):
        (tmp_path / "x" / name).mkdir(parents=True)
        for index in range(4):
            pixels = np.full((8, 8, 3), 90 * place + index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "x" / name / f"{index}.png")
    files = [str(tmp_path / "x" / name / "0.png") for name in names]
    done = subprocess.run(
        [
            sys.executable, "-m", "experiments.command.cli", "predict", "--task", "b",
            "--data", f"folder:{tmp_path / 'x'}", "--run", str(simulated.folder), *files,
        ],
        capture_output=True, check=False, timeout=900,
        env={
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0",
            "PYTHONPATH": str(ROOT), "COLUMNS": "200",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = done.stdout.decode(encoding)
    assert printed.count("0.png") == 3
    assert "Traceback" not in done.stderr.decode(encoding)
    if encoding == "utf-8":
        assert all(name in printed for name in names)


@pytest.mark.parametrize(
    ("where", "says"),
    [("", "is a folder"), ("file/x.json", "is a file; choose another folder")],
)
def test_where_nothing_can_be_written_is_seen_before_the_work(
    tmp_path: Path, where: str, says: str
) -> None:
    (tmp_path / "file").touch()

    def work() -> dict[str, Any]:
        raise AssertionError("it must not begin")

    with pytest.raises(RecastError, match=says):
        report(tmp_path / where, work)
    with pytest.raises(RecastError, match=says):
        report(None, work, tmp_path / where)
