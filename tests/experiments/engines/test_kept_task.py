"""Tasks that keep an earlier task's head: it is sent once, and no byte of it ever after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.app import app
from client.data import known_classes
from experiments.command.predict import predict
from experiments.command.tasks_export import export
from experiments.engines.folded import FoldedGrid, together
from experiments.engines.sequential import SequentialGrid
from experiments.report.summary import summarise
from recast_core import TaskLibrary, TemplateBank
from recast_core.errors import RecastError
from recast_core.settings import Settings
from recast_core.wire.head_bytes import unpack_head
from server.app import Conditions, RunResult, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.ledger import Ledger
from server.record.registry import Registry
from server.rounds.gathering import ClassesOf

CLIENTS = 3
Make = Callable[..., Settings]


@pytest.fixture
def keeping(tiny: Make, digits_file: Path) -> Make:
    def make(**changed: object) -> Settings:
        data = f"npz:{digits_file}"
        values: dict[str, object] = {
            "tasks": f"a={data} b={data}+inverted c={data}+flipped",
            "head": "task:a",
            "rounds": 2,
        }
        return tiny(**(values | changed))

    return make


def learn(
    settings: Settings,
    folder: Path,
    engine: str = "folded",
    classes_of: ClassesOf | None = None,
) -> RunResult:
    with server_identity():
        if engine == "folded":
            grid: FoldedGrid | SequentialGrid = FoldedGrid(CLIENTS, settings)
        else:
            grid = SequentialGrid(CLIENTS, app, settings, folder / "caches")
        around = Conditions(patience=0, classes_of=classes_of)
        return run_federation(grid, settings, folder, LogObserver(), conditions=around)


def head_bytes(registry: Registry) -> Counter[str]:
    """Bytes of heads by task, both ways."""
    sums: Counter[str] = Counter()
    totals = Ledger(registry).totals(1, by=("task", "kind", "layer"))
    for (task, kind, layer), size in totals.items():
        if kind == "head" and layer == "message":
            sums[task] += size
    return sums


def test_a_kept_head_is_unpacked_only_for_who_uses_it_as_it_is(
    keeping: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a label mix the logits count, of a classifier that the exam makes."""
    asked: list[bool] = []
    examine, unpack = together.Together.examine, together.unpack_head_for

    def watched(self: Any, exams: Any) -> Any:
        asked.append(any(one.mix is None for one in exams))
        return examine(self, exams)

    def counted(*args: Any) -> Any:
        assert asked[-1]
        return unpack(*args)

    monkeypatch.setattr(together.Together, "examine", watched)
    monkeypatch.setattr(together, "unpack_head_for", counted)
    learn(keeping(rounds=1), tmp_path)
    assert set(asked) == {True, False}


@pytest.mark.parametrize("kind", ["", ":means", ":shared"])
def test_later_tasks_keep_a_head_without_a_byte_of_it_and_all_engines_agree(
    keeping: Make, tmp_path: Path, kind: str
) -> None:
    settings = keeping(head=f"task:a{kind}")
    with (
        Registry(learn(settings, tmp_path / "one").registry) as one,
        Registry(learn(settings, tmp_path / "other", "sequential").registry) as other,
    ):
        for task in (1, 2, 3):
            here, there = one.coefficients(1, task, 2), other.coefficients(1, task, 2)
            np.testing.assert_allclose(here, there, rtol=0, atol=1e-5)
        assert [a.accuracy for a in one.accuracies(1)] == [a.accuracy for a in other.accuracies(1)]
        assert one.baselines(1) == other.baselines(1)
        assert set(one.baselines(1)) == {2, 3}
        assert head_bytes(one).keys() == {"a"}
        assert head_bytes(one) == head_bytes(other)
        assert one.head(1, 1) == one.head(1, 2) == one.head(1, 3) is not None
        # What the task found is the network as the first one left it, not as it came.
        own = {a.task: a.accuracy for a in one.accuracies(1) if a.task == a.after_task}
        assert one.baselines(1)[2]["deployed"] < own[1]
        # Learning later ones leaves the first as it was.
        first = [a.accuracy for a in one.accuracies(1) if a.task == 1]
        assert first[0] == first[-1]


def test_a_task_starts_where_the_head_was_learned(keeping: Make, tmp_path: Path) -> None:
    with Registry(learn(keeping(learning_rate=1e-5), tmp_path).registry) as registry:
        first, later = registry.coefficients(1, 1), registry.coefficients(1, 2)
        start = registry.coefficients(1, 1, 1)
        assert np.abs(later - first).max() < 1e-3
        assert start.shape == later.shape


def test_a_client_that_lost_the_head_is_sent_it_again(
    keeping: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cache is emptied after the first task: it misses one round, and no more."""
    settings = keeping(rounds=3)
    original = LogObserver.round_started
    caches = tmp_path / "caches"

    def started(self: LogObserver, task: str, round_: int, rounds: int, clients: int) -> None:
        if (task, round_) == ("b", 1):
            lost = [*caches.glob("**/head-*")]
            assert lost
            lost[0].unlink()
        original(self, task, round_, rounds, clients)

    monkeypatch.setattr(LogObserver, "round_started", started)
    with Registry(learn(settings, tmp_path, "sequential").registry) as registry:
        refusals = [(r.task, r.round, r.reason) for r in registry.refusals(1)]
        assert refusals == [("b", 1, "head-missing")]
        assert [r.clients for r in registry.rounds(1, 2)] == [2, 3, 3]
        size = head_bytes(registry)
        assert 0 < size["b"] < size["a"] / 2
        assert size["c"] == 0


def test_a_run_that_was_killed_goes_on_with_the_same_head(
    keeping: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = keeping()
    whole = learn(settings, tmp_path / "whole")
    original = LogObserver.round_started

    def started(self: LogObserver, task: str, round_: int, rounds: int, clients: int) -> None:
        if (task, round_) == ("b", 2):
            raise KeyboardInterrupt
        original(self, task, round_, rounds, clients)

    with monkeypatch.context() as patched:
        patched.setattr(LogObserver, "round_started", started)
        with pytest.raises(KeyboardInterrupt):
            learn(settings, tmp_path / "cut")
    again = learn(settings, tmp_path / "cut")
    with Registry(whole.registry) as one, Registry(again.registry) as other:
        for task in (1, 2, 3):
            assert np.array_equal(one.coefficients(1, task), other.coefficients(1, task))
        assert one.head(1, 3) == other.head(1, 3)
        assert one.baselines(1) == other.baselines(1)


def test_the_head_of_another_run_or_of_a_library_is_kept(
    keeping: Make, digits_file: Path, tmp_path: Path
) -> None:
    within = learn(keeping(), tmp_path / "within")
    alone = learn(keeping(head="ridge", tasks=f"a=npz:{digits_file}"), tmp_path / "alone")
    later = f"b=npz:{digits_file}+inverted"
    with Registry(within.registry) as one:
        vector, (kind, content) = one.coefficients(1, 1), one.head(1, 1) or ("", b"")
        assert isinstance(within.start, TemplateBank)
        library = TaskLibrary(within.start)
        names = one.class_lists(1)[1] or None
        library.add("a", torch.from_numpy(vector), unpack_head(content, kind), names)
        library.save(tmp_path / "library")
        found = []
        for place in ("alone", "library"):
            settings = keeping(head=f"task:a@{tmp_path / place}", tasks=later)
            run = learn(settings, tmp_path / f"by-{place}")
            with Registry(run.registry) as other:
                found.append((other.coefficients(1, 1), other.baselines(1)[1]))
                # Each of the clients is sent it once.
                assert head_bytes(other)["b"] < 1.1 * CLIENTS * (len(content) + 8)
        np.testing.assert_allclose(found[0][0], found[1][0], rtol=0, atol=1e-5)
        # The other candidate aside, it is the task of one run.
        assert found[0][1] == found[1][1] == one.baselines(1)[2]
    assert alone.start.sha256 == within.start.sha256


def test_its_export_and_predictions_have_the_head_that_was_kept(
    keeping: Make, digits_file: Path, tmp_path: Path
) -> None:
    from PIL import Image

    result = learn(keeping(), tmp_path / "run")
    told = export("b", tmp_path / "b.safetensors", f"npz:{digits_file}+inverted", result.folder)
    assert told["head"] == "kept"
    assert told["classes"] == ["c0", "c1", "c2"]
    image = tmp_path / "one.png"
    Image.fromarray(255 - np.load(digits_file)["x_test"][0]).save(image)
    by_task = predict([image], "b", result.folder, "", None)
    by_file = predict([image], "", None, "", tmp_path / "b.safetensors")
    assert by_task["images"] == by_file["images"]
    assert export("a", tmp_path / "a.safetensors", "", result.folder)["head"] == "merged"


def test_what_cannot_be_kept_is_refused_in_a_line(
    keeping: Make, digits_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecastError, match=r"a local head never leaves its client.*task:a:ridge"):
        keeping(head="task:a:local")
    with pytest.raises(RecastError, match=r"no task 'z' \(a, b, c\).*task:z@PATH"):
        keeping(head="task:z")
    with pytest.raises(RecastError, match="no task follows 'c'"):
        keeping(head="task:c")
    with pytest.raises(RecastError, match="cannot read head 'task:a@'"):
        keeping(head="task:a@")
    local = learn(keeping(head="local", tasks=f"a=npz:{digits_file}", rounds=1), tmp_path / "local")
    later = {"tasks": f"b=npz:{digits_file}", "head": f"task:a@{local.folder}"}
    with pytest.raises(RecastError, match=r"no head that travelled.*learn it with --head ridge"):
        learn(keeping(**later), tmp_path / "none")
    arrays = dict(np.load(digits_file))
    strange = tmp_path / "strange.npz"
    np.savez(strange, **(arrays | {"classes": np.array(["c0", "c1", "dog"])}))
    settings = keeping(tasks=f"a=npz:{digits_file} b=npz:{strange}")
    with pytest.raises(RecastError, match="dog"):
        learn(settings, tmp_path / "strange", classes_of=known_classes)
    # Where the clients alone know, it shows when the list is agreed: they take no part in it.
    with Registry(learn(settings, tmp_path / "late").registry) as registry:
        assert registry.last_rounds(1) == {1: 2}
        assert {r.reason for r in registry.refusals(1) if r.task == "b"} == {"classes"}


def test_with_the_deployed_classifier_it_is_head_backbone() -> None:
    settings = Settings(head="task:impulse")
    assert settings.kept_task is None
    assert settings.head_kind == "backbone"
    assert settings.settled().head == "backbone"
    other = Settings(head="task:impulse:ridge")
    assert other.settled().head == "task:impulse:ridge"
    assert Settings(head="task:fog", keep_running=True, backbone="glyph_resnet20").keeps


def test_the_report_has_both_kinds_of_tasks(keeping: Make, tmp_path: Path) -> None:
    report = summarise(learn(keeping(), tmp_path), "folded", 0, 1.0)
    assert ["zero_byte_accuracy" in task for task in report["tasks"]] == [False, True, True]
