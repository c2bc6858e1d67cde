"""A server that dies at any moment, and the one that goes on in its place."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recast_core import RecastError
from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.record.lock import LOCK, hold, is_held, settle
from server.record.registry import Registry
from server.record.resume import unfinished
from server.record.rows import FinishedRound

if TYPE_CHECKING:
    from conftest import Federation

Make = Callable[..., "Federation"]
ROOT = Path(__file__).parents[3]
PLAN: dict[str, Any] = {"nodes": 3, "tasks": 3, "rounds": 2, "parallel": 2, "clients_per_round": 2}


def learn(made: Federation) -> None:
    made.go()
    made.strategy.evaluate_again(made.grid)
    made.strategy.record_rest()


def outcome(made: Federation) -> object:
    """All that a run is worth: coefficients of every round, and accuracies."""
    registry, run = made.registry, made.run
    return (
        [
            (task.number, entry.round, entry.coefficients, entry.clients, entry.examples)
            for task in registry.tasks(run)
            for entry in registry.rounds(run, task.number)
        ],
        sorted((a.task, a.after_task, a.accuracy, a.examples) for a in registry.accuracies(run)),
    )


def assert_whole(made: Federation) -> None:
    """The ledger has the updates of the recorded rounds and no others."""
    registry, run = made.registry, made.run
    recorded = {
        (task.name, entry.round): entry.clients
        for task in registry.tasks(run)
        for entry in registry.rounds(run, task.number)
    }
    by = ("task", "round", "client", "kind", "direction", "layer")
    found: dict[tuple[object, object], int] = {}
    for task, round_, _, kind, direction, layer in Ledger(registry).totals(run, by=by):  # type: ignore[arg-type]
        if (kind, direction, layer) == ("coefficients", "up", "message"):
            found[task, round_] = found.get((task, round_), 0) + 1
    assert found == recorded


def test_killed_at_any_message_a_run_ends_as_if_nothing_had_happened(federation: Make) -> None:
    whole = federation(**PLAN)
    learn(whole)
    events = whole.grid.events
    assert events > 12
    killed = sys.modules[type(whole.grid).__module__].Killed
    for moment in range(1, events + 1):
        first = federation(**PLAN)
        first.grid.kill_at = moment
        with pytest.raises(killed):
            learn(first)
        assert_whole(first)
        second = federation(**PLAN, run=first.run)
        second.grid.nodes = first.grid.nodes
        learn(second)
        assert_whole(second)
        assert outcome(second) == outcome(whole), f"killed at event {moment} of {events}"
        assert all(node.kinds().count("bank") == 1 for node in first.grid.nodes.values())


def test_killed_twice_and_before_every_commit_a_run_ends_the_same(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = federation(**PLAN)
    learn(whole)
    killed = sys.modules[type(whole.grid).__module__].Killed
    for moment in range(1, 12):
        made = federation(**PLAN)
        for _ in range(2):
            count = 0
            right = made.registry.writing

            def dying(what: str, right: Any = right, moment: int = moment) -> Any:
                nonlocal count
                count += 1
                if count == moment:
                    raise killed
                return right(what)

            with monkeypatch.context() as patch:
                patch.setattr(made.registry, "writing", dying)
                try:
                    learn(made)
                except killed:
                    assert_whole(made)
            made = federation(**PLAN, run=made.run)
        learn(made)
        assert outcome(made) == outcome(whole)


def test_a_run_goes_on_only_with_its_own_settings(tmp_path: Path) -> None:
    config = {"rounds": 3, "learning-rate": 0.02, "run-dir": "x", "deadline": 9.0}
    with Registry(tmp_path / "registry.sqlite") as registry:
        assert unfinished(registry, config) is None
        run = registry.start_run(config, bytes(32), {}, "test")
        found = unfinished(registry, config | {"run-dir": "y", "deadline": 1.0, "device": "cpu"})
        assert found is not None
        assert found.id == run
        assert unfinished(registry, config | {"rounds": 4}) is None  # there is nothing to lose yet
        registry.add_task(run, "a")
        registry.record_rounds(run, [FinishedRound(1, 1, _vector(), 1, 1, 0.1)], [])
        with pytest.raises(RecastError, match=r"has learning-rate 0\.02, not 0\.5: give the same"):
            unfinished(registry, config | {"learning-rate": 0.5})
        with pytest.raises(RecastError, match="has clients None, not 3"):
            unfinished(registry, config | {"clients": 3})
        registry.finish_run(run, "finished")
        assert unfinished(registry, config | {"rounds": 4}) is None


def test_a_run_of_before_a_setting_came_goes_on_with_what_its_default_says(tmp_path: Path) -> None:
    config = Settings().as_dict()
    gone = ("aggregation", "max-weight")
    before = {name: value for name, value in config.items() if name not in gone}
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run(before, bytes(32), {}, "test")
        registry.add_task(run, "a")
        registry.record_rounds(run, [FinishedRound(1, 1, _vector(), 1, 1, 0.1)], [])
        found = unfinished(registry, config)
        assert found is not None
        assert found.id == run
        with pytest.raises(RecastError, match="has aggregation 'mean', not 'median'"):
            unfinished(registry, config | {"aggregation": "median"})


def _vector() -> Any:
    import numpy as np

    return np.zeros(4, np.float32)


HOLDER = """
import sys, types
from pathlib import Path
package = types.ModuleType("recast_core")
package.__path__ = [str(Path("recast_core").resolve())]
sys.modules["recast_core"] = package
from server.record.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()  # until it is killed, or who started it has ended
"""


def test_a_killed_server_is_told_from_a_running_one(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {}, "test")
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert is_held(tmp_path)
        settle(registry)
        assert registry.runs()[0].status == "running"
        with pytest.raises(RecastError, match=f"process {child.pid}"), hold(tmp_path):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not is_held(tmp_path)
        settle(registry)
        assert registry.runs()[0].status == "interrupted"
        registry.resume_run(run)
        assert registry.runs()[0].status == "running"


def test_whoever_only_looks_is_taken_for_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).touch()
    looks = os.open(tmp_path / LOCK, os.O_RDWR)
    fcntl.flock(looks, fcntl.LOCK_SH)
    assert not is_held(tmp_path)
    lock = fcntl.flock

    def looked(descriptor: int, kind: int) -> None:
        """It has looked when it was met."""
        try:
            lock(descriptor, kind)
        except BlockingIOError:
            monkeypatch.undo()
            met.append(kind)
            os.close(looks)
            raise

    met: list[int] = []
    monkeypatch.setattr(fcntl, "flock", looked)
    with hold(tmp_path):
        assert is_held(tmp_path)
    assert len(met) == 1


def test_a_folder_is_free_again_after_a_server_and_says_whose_it_is(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "none")
    with hold(tmp_path / "run"):
        assert is_held(tmp_path / "run")
        assert (tmp_path / "run" / LOCK).read_text() == f"{os.getpid()}\n"
    assert not is_held(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RecastError, match="name a folder for the run"),
        hold(tmp_path / "file"),
    ):
        pass
