"""Runs are listed, shown, compared and removed, and nothing else is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from experiments.command import runs
from recast_core.errors import RecastError
from server.record.lock import hold
from server.record.registry import Registry

if TYPE_CHECKING:
    from conftest import Simulated


@pytest.fixture
def folders(simulated: Simulated, tmp_path: Path) -> Path:
    shutil.copytree(simulated.folder, tmp_path / "runs" / "one")
    with Registry(tmp_path / "runs" / "two" / "registry.sqlite") as registry:
        run = registry.start_run({"rounds": 9, "seed": 0}, bytes(32), {}, "recast simulate")
        registry.add_task(run, "t")
    return tmp_path / "runs"


def test_every_run_under_a_folder_is_listed_with_what_became_of_it(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = runs.list_runs(folders)["runs"]
    assert (one["folder"], one["status"], one["tasks"]) == (
        str(folders / "one"), "finished", ["a", "b"],
    )  # fmt: skip
    assert (one["rounds"], two["rounds"], two["accuracy"]) == (4, 0, None)
    assert two["status"] == "interrupted"  # it is recorded as running, and nobody is at work there
    with hold(folders / "two"):
        assert runs.list_runs(folders / "two")["runs"][0]["status"] == "running"
    assert "interrupted" in capsys.readouterr().out


def test_a_file_that_goes_while_runs_are_listed_is_no_matter(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folders / "two" / "part.tmp").write_bytes(bytes(1000))
    stat = Path.stat

    def last_seen(self: Path, **options: Any) -> os.stat_result:
        found = stat(self, **options)
        if self.name == "part.tmp":
            self.unlink()
        return found

    monkeypatch.setattr(Path, "stat", last_seen)
    (found,) = runs.list_runs(folders / "two")["runs"]
    assert found["bytes"] > 0
    assert not (folders / "two" / "part.tmp").exists()


def test_a_database_that_is_away_hides_no_run_that_is_here(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg")
    (folders / "three").mkdir()
    (folders / "three" / "registry.url").write_text(
        "postgresql+psycopg://me@127.0.0.1:9/x\nthree\n"
    )
    assert len(runs.list_runs(folders)["runs"]) == 2
    assert str(folders / "three") in capsys.readouterr().err


def test_a_run_is_shown_with_the_settings_that_are_not_the_defaults(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data: dict[str, Any] = runs.show_run(folders / "two", None)
    assert data["settings"] == {
        "rounds": {"value": 9, "changed": True}, "seed": {"value": 0, "changed": False},
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "settings: rounds 9\n" in said
    assert "run 1 (1 there): interrupted" in said  # as the list has it


def test_runs_compared_show_what_differs(folders: Path) -> None:
    found = runs.compare_runs([folders / "one", folders / "two"])
    assert found["settings"]["rounds"] == [2, 9]
    assert "seed" not in found["settings"]
    with pytest.raises(RecastError, match="at least two"):
        runs.compare_runs([folders / "one"])


def test_a_run_is_removed_once_confirmed_and_a_stranger_s_file_stays(folders: Path) -> None:
    (folders / "one" / "notes.txt").write_text("mine")
    with pytest.raises(RecastError, match="stays"):
        runs.remove_run(folders / "one", lambda question: False)
    with hold(folders / "one"), pytest.raises(RecastError, match="at work"):
        runs.remove_run(folders / "one", lambda question: True)
    asked: list[str] = []
    report = runs.remove_run(folders / "one", lambda question: not asked.append(question))
    assert str(folders / "one") in asked[0]
    assert report["left"] == ["notes.txt"]
    assert [path.name for path in (folders / "one").iterdir()] == ["notes.txt"]
    runs.remove_run(folders / "two", lambda question: True)
    assert not (folders / "two").exists()
    with pytest.raises(RecastError, match="no run's folder"):
        runs.remove_run(folders, lambda question: True)


def test_where_nobody_can_be_asked_nothing_is_removed(folders: Path, recast: Any) -> None:
    done = recast("runs", "remove", str(folders / "two"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "--yes" in done.stderr
    assert (folders / "two" / "registry.sqlite").is_file()


def test_where_nothing_has_been_run_the_list_is_empty_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs.list_runs(runs.RUNS) == {"runs": []}
    assert "no runs here (runs)" in capsys.readouterr().out
    with pytest.raises(RecastError, match="no folder"):  # a name that was given is a mistake
        runs.list_runs(tmp_path / "rnus")
