"""`recast.simulate` and `recast.Federation`: the command's run, as objects and data frames."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import recast
from experiments.session.library import linear_of
from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.record.registry import Registry
from tests.recast_core import strangers as s

Tiny = Callable[..., Settings]


def keywords(settings: Settings, **changed: Any) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(settings)} | changed


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> recast.Run:
    folder = tmp_path_factory.mktemp("python") / "run"
    return recast.simulate(clients=2, **keywords(tiny(rounds=2, run_dir=str(folder))))


def test_python_and_the_command_learn_the_same(run: recast.Run, simulated: Any) -> None:
    def vectors(folder: Path) -> list[bytes]:
        with Registry(folder / "registry.sqlite") as registry:
            return [
                row.coefficients for task in (1, 2) for row in registry.rounds(1, task)
            ]  # fmt: skip

    found, wanted = vectors(run.folder), vectors(simulated.folder)
    assert len(found) == 4
    for one, other in zip(found, wanted, strict=True):
        ours, theirs = np.frombuffer(one, "<f4"), np.frombuffer(other, "<f4")
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert run.summary["tasks"][0].keys() == simulated.report["tasks"][0].keys()
    assert run.status == "finished"


def test_the_frames_are_what_the_registry_has(run: recast.Run) -> None:
    assert list(run.tasks["name"]) == ["a", "b"]
    assert list(run.tasks["rounds"]) == [2, 2]
    history = run.history
    assert list(zip(history["task"], history["round"], history["step"], strict=True)) == [
        ("a", 1, 1), ("a", 2, 2), ("b", 1, 3), ("b", 2, 4),
    ]  # fmt: skip
    assert (history["updates"] == 2).all()
    assert history["accuracy"].dtype == history["loss"].dtype == np.float64
    ledger = run.ledger
    with Registry(run.registry) as registry:
        totals = Ledger(registry).totals(1, by=("direction", "layer"))
    summed = ledger.groupby(["direction", "layer"])["bytes"].sum().to_dict()
    assert summed == totals
    rounds = ledger[(ledger["layer"] == "message") & (ledger["direction"] == "up")]
    own = rounds[(rounds["task"] == "a") & (rounds["round"] == 1)]["bytes"].sum()
    assert history["bytes_up"][0] == own > 0
    assert list(run.evaluations[["task", "after"]].itertuples(index=False, name=None)) == [
        ("a", "a"), ("b", "b"), ("a", "b"),
    ]  # fmt: skip
    assert all(isinstance(x, pd.DataFrame) for x in (run.tasks, history, ledger))


def test_a_library_keeps_no_classifier_that_is_more_than_one_linear() -> None:
    head = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    assert linear_of(nn.Sequential(nn.Dropout(), nn.Linear(4, 3))).out_features == 3
    for refused in (head, s.CalledLinear(4, 3), nn.Identity()):
        with pytest.raises(recast.RecastError, match=r"computes more than .* use run\.model"):
            linear_of(refused)


def test_the_report_is_written_where_it_is_wanted(run: recast.Run, tmp_path: Path) -> None:
    page = run.report(tmp_path / "x.html")
    assert page == tmp_path / "x.html"
    assert "<html" in page.read_text()[:400]


def test_the_bank_and_the_library_are_those_of_the_run(run: recast.Run, tmp_path: Path) -> None:
    tasks = run.library()
    assert tasks.list() == ["a", "b"]
    assert tasks.bank.sha256 == run.bank.sha256
    with Registry(run.registry) as registry:
        last = registry.coefficients(1, 1)
    assert tasks["a"].coefficients.numpy().tobytes() == last.tobytes()
    assert tasks["a"].classes == ("c0", "c1", "c2")
    tasks.save(tmp_path)
    again = recast.TaskLibrary.load(tmp_path, run.bank)
    net = run.model("b")
    again.activate(net, "b")
    assert net(torch.zeros(1, 3, 8, 8)).shape == (1, 3)
    with pytest.raises(recast.RecastError, match="no task 'zebra'"):
        run.library(data={"zebra": "digits"})


def test_a_run_is_opened_again(run: recast.Run, tmp_path: Path) -> None:
    again = recast.open_run(run.folder)
    assert (again.number, again.registry) == (run.number, run.registry)
    assert again.history.equals(run.history)
    assert again.settings == run.settings
    with pytest.raises(recast.RecastError, match="has no run 7: choose one of \\[1\\]"):
        recast.open_run(run.folder, 7)
    with pytest.raises(recast.RecastError, match="no run in"):
        recast.open_run(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"round": 3}, "unknown setting 'round', did you mean rounds\\?"),
        ({"availabilty": 0.5}, "unknown setting 'availabilty', did you mean availability\\?"),
        ({"xyzzy": 1}, "unknown setting 'xyzzy'; `recast simulate --help` lists them"),
        ({"rounds": 0}, "rounds is 0: give at least 1"),
        ({"rounds": 10**20}, "give at most 2147483647"),
        ({"batch": 10**20}, "give at most 2147483647"),
        ({"clients": 10**20}, "give at most 1000000"),
        ({"dp_epsilon": 1e-300}, "give 1e-06 or more"),
        ({"run_dir": "x" * 300}, "File name too long; name another folder"),
        ({"engine": "foldet"}, "unknown engine 'foldet'.*did you mean folded"),
        ({"clients": 0}, "0 clients: give at least 1"),
        ({"aggregation": 3}, "aggregation is a int: give a name as the command takes it"),
        ({"head": object()}, "head is a object: give a name"),
        ({"log": "tensorbord:x"}, "unknown log 'tensorbord:x' \\(did you mean tensorboard\\?\\)"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(
    wrong: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(recast.RecastError, match=message) as caught:
        recast.simulate(**wrong)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_tasks_may_be_a_list_or_a_mapping() -> None:
    listed = recast.Federation(["digits", "digits+inverted"]).settings.tasks
    assert listed == recast.Federation("digits digits+inverted").settings.tasks or listed
    named = recast.Federation({"plain": "digits", "dark": "digits+inverted"}).settings.tasks
    assert [text.partition("=")[0] for text in named.split()] == ["plain", "dark"]


class Heard(recast.Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def run_started(self, event: recast.RunStarted) -> None:
        self.events.append(("start", event.run, event.settings["rounds"]))

    def round_finished(self, event: recast.RoundFinished) -> None:
        self.events.append((event.task, event.round, event.rounds, event.step))

    def task_finished(self, event: recast.TaskFinished) -> None:
        self.events.append((event.task, "learned"))

    def run_finished(self, report: Mapping[str, Any]) -> None:
        self.events.append(len(report["tasks"]))

    def close(self) -> None:
        self.events.append("closed")


def test_callbacks_hear_of_every_round_and_task_in_order(tiny: Tiny, tmp_path: Path) -> None:
    heard, rounds, tasks = Heard(), list[recast.RoundFinished](), list[recast.TaskFinished]()
    run = recast.simulate(
        clients=2,
        callbacks=[heard],
        on_round=rounds.append,
        on_task=tasks.append,
        **keywords(tiny(rounds=2, run_dir=str(tmp_path / "run"))),
    )
    assert heard.events == [
        ("start", 1, 2),
        ("a", 1, 2, 1), ("a", 2, 2, 2), ("a", "learned"),
        ("b", 1, 2, 3), ("b", 2, 2, 4), ("b", "learned"),
        2, "closed",
    ]  # fmt: skip
    history = run.history
    for name in ("bytes_up", "bytes_down"):
        told = np.array([getattr(event, name) for event in rounds])
        # The evaluations after a task's last round are still to come when it is told.
        evaluations = list(history[name]) - told
        assert ((evaluations > 0) == (history["round"] == 2)).all()
        assert (told > 0).all()
    with Registry(run.registry) as registry:
        assert rounds[1].coefficients.tobytes() == registry.coefficients(1, 1, 2).tobytes()
    assert [event.accuracy for event in tasks] == list(run.evaluations["accuracy"][:2])


def test_a_callback_may_end_a_run_that_then_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    settings = keywords(tiny(rounds=2, run_dir=str(tmp_path / "run")))
    heard = Heard()

    def stop(event: recast.RoundFinished) -> None:
        if event.step == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        recast.simulate(clients=2, callbacks=[heard], on_round=stop, **settings)
    assert heard.events[-1] == "closed"
    assert recast.open_run(tmp_path / "run").status == "failed"
    steps = list[int]()
    client = logging.getLogger("recast.client")
    assert client.level != logging.ERROR, "a simulation that failed leaves it as it was"
    run = recast.simulate(clients=2, on_round=lambda event: steps.append(event.step), **settings)
    assert client.level != logging.ERROR, "as does one that did not"
    assert (steps, run.status, len(run.history)) == ([4], "finished", 4)


def test_it_runs_within_a_running_event_loop(tiny: Tiny, tmp_path: Path) -> None:
    async def cell() -> recast.Run:
        return recast.simulate(clients=2, **keywords(tiny(run_dir=str(tmp_path / "run"))))

    assert asyncio.run(cell()).status == "finished"


def test_what_is_simulated_may_be_a_fleet(tiny: Tiny, tmp_path: Path) -> None:
    run = recast.simulate(
        clients=3, drop_out=0.3, **keywords(tiny(run_dir=str(tmp_path / "run")))
    )  # fmt: skip
    assert run.summary["fleet"]["lost"].keys() <= {"dropped"}
    assert json.dumps(run.summary["tasks"])
