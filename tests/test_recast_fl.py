"""A user's module that is called like one of our packages costs one line, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.command import program

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["client", "server", "experiments", "protos", "recast_core"]


def run(command: list[str], folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "plan", "glyph_resnet20", "--target", "conv", "--json", "plan.json"],
        capture_output=True, text=True, cwd=folder, check=False, timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )  # fmt: skip


@pytest.mark.parametrize("as_package", [False, True])
@pytest.mark.parametrize("name", PACKAGES)
def test_whatever_hides_a_package_of_ours_is_named_in_one_line(
    tmp_path: Path, name: str, as_package: bool
) -> None:
    mine = tmp_path / name if as_package else tmp_path / f"{name}.py"
    if as_package:
        mine.mkdir()
        (mine / "__init__.py").touch()
    else:
        mine.write_text("raise SystemExit('code of the user ran')\n")
    door = [sys.executable, "-P", "-c", "import recast_fl; recast_fl.main()"]
    done = run(door, tmp_path, f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"recast: {mine} hides recast's package {name}: rename it")
    assert (done.stderr.count("\n"), done.stdout) == (1, "")


def test_the_module_says_it_too_where_it_is_run_in_that_folder(tmp_path: Path) -> None:
    (tmp_path / "client.py").touch()
    done = run([sys.executable, "-m", "experiments.command.cli"], tmp_path, str(ROOT))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"recast: {tmp_path / 'client.py'} hides")


def test_rays_workers_are_not_started_where_they_would_find_other_packages(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()  # without __init__.py it hides nothing
    (tmp_path / "experiments.py").write_text("raise SystemExit('code of the user ran')\n")
    done = subprocess.run(
        [*program.program(), "simulate", "--engine", "ray", "--clients", "2"],
        capture_output=True, text=True, cwd=tmp_path, check=False, timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"recast: {tmp_path / 'experiments.py'} hides recast's package")
    assert last.endswith("Ray's workers search the current folder first")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("installed", [True, False])
def test_a_further_command_starts_whatever_lies_in_the_current_folder(
    tmp_path: Path, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PACKAGES:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('code of the user ran')\n")
    if not installed:
        monkeypatch.setattr(program.os, "access", lambda path, mode: False)
        monkeypatch.setattr(program.shutil, "which", lambda name: None)
    command = program.program()
    assert (command[0] == sys.executable) == (not installed)
    monkeypatch.setenv("PYTHONPATH", "")
    done = run(command, tmp_path, program.environment()["PYTHONPATH"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "plan.json").exists()


def test_the_script_beside_this_python_comes_before_another_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("own", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "recast").write_text("#!/bin/sh\n")
        (tmp_path / folder / "recast").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "own" / "python"))
    assert program.program() == [str(tmp_path / "own" / "recast")]
    (tmp_path / "own" / "recast").unlink()
    assert program.program() == [str(tmp_path / "other" / "recast")]
