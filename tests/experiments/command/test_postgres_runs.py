"""Runs whose registry is in PostgreSQL, with real commands, and a database that is killed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from experiments.command import cli
from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.record.registry import Registry
from server.record.tables import Base
from tests.experiments import pausing
from tests.postgres import Cluster

if TYPE_CHECKING:
    from conftest import Process

ROUNDS, CLIENTS = 8, 3
Line = Callable[[Settings], list[str]]


def learned(folder: Path) -> tuple[dict[tuple[str, int], bytes], dict[Any, int]]:
    """Each round's coefficients, and its bytes by kind, way and layer."""
    with Registry(folder / "registry.sqlite") as registry:
        (run,) = registry.runs()
        assert run.status == "finished"
        vectors = {
            (task.name, entry.round): entry.coefficients
            for task in registry.tasks(run.id)
            for entry in registry.rounds(run.id, task.number)
        }
        keys = ("task", "round", "client", "kind", "direction", "layer")
        found = Ledger(registry).totals(run.id, by=keys)  # type: ignore[arg-type]
    return vectors, {key: size for key, size in found.items() if key[3] == "coefficients"}


def test_a_server_and_a_database_that_are_killed_lose_no_finished_round(
    tiny: Callable[..., Settings], command_line: Line, start: Callable[..., Process],
    recast: Any, database: str, postgres: Cluster, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # However late we are to kill them, they are not done.
    monkeypatch.setenv("RECAST_PLUGINS", pausing.NAME)
    pause = f"pause:{2 * ROUNDS - 2}:{tmp_path / 'go'}"

    def arguments(name: str, registry: str) -> list[str]:
        chosen = tiny(rounds=ROUNDS, run_dir=str(tmp_path / name), registry=registry)
        return ["simulate", "--clients", str(CLIENTS), *command_line(chosen)]

    one = start("one", *arguments("killed", database), "--log", pause)
    one.says(r"a round 2:")
    one.process.kill()
    one.ends()
    with Registry(tmp_path / "killed" / "registry.sqlite") as registry:
        before = sum(registry.last_rounds(1).values())
    assert before >= 2
    two = start("two", *arguments("killed", database), "--log", pause)
    two.says(rf"continuing run 1 after {before} finished rounds")
    two.says(r" round \d+:")
    postgres.stop(kill=True)
    (tmp_path / "go").touch()
    two.says(r"waiting 300 s for it")
    postgres.start()
    assert two.ends() == 0, two.log.read_text()
    assert "is back" in two.log.read_text()
    done = recast(*arguments("whole", ""))
    assert done.returncode == 0, done.stderr
    assert learned(tmp_path / "killed") == learned(tmp_path / "whole")
    assert len(learned(tmp_path / "killed")[0]) == 2 * ROUNDS


def test_every_command_that_reads_a_run_reads_one_in_a_database(
    tiny: Callable[..., Settings], command_line: Line, database: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def says(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["recast", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capfd.readouterr()
        assert caught.value.code == 0, printed.err
        return printed.out

    def answers(*words: str) -> Any:
        return json.loads(says(*words, "--json", "-"))

    monkeypatch.chdir(tmp_path)
    settings = tiny(rounds=1, run_dir="runs/one", registry=database)
    out = says("simulate", "--clients", "2", *command_line(settings))
    assert f"registry: {database}" in out
    assert [task["name"] for task in answers("tasks", "list")["tasks"]] == ["a", "b"]
    assert len(answers("ledger", "runs/one")["rows"]) > 3
    assert answers("runs", "list")["runs"][0]["status"] == "finished"
    assert answers("runs", "show", "runs/one")["run"]["registry"] == database
    says("tasks", "export", "a", "--run", "runs/one", "-o", "a.safetensors")
    says("report", "runs/one", "-o", "p.html")
    assert (tmp_path / "p.html").exists()
    assert answers("tasks", "rewind", "b", "--round", "0", "--run", "runs/one")["round"] == 0
    says("runs", "remove", "runs/one", "--yes")
    assert not (tmp_path / "runs" / "one").exists()
    with Registry(tmp_path / "x" / "registry.sqlite", url=database) as registry:
        for table in Base.metadata.tables:
            with registry.reading() as session:
                count = f"SELECT count(*) FROM {table}"
                assert session.connection().exec_driver_sql(count).scalar() == 0, table
