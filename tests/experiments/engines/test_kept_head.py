"""A run that keeps the deployed classifier: every engine agrees, and nothing of it travels."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from client.app import app
from client.data import load_dataset, parse_task
from experiments.engines.folded import FoldedGrid
from experiments.engines.sequential import SequentialGrid
from experiments.report.summary import summarise
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.backbones.preprocess import Preprocess
from recast_core.errors import RecastError
from recast_core.settings import Settings
from recast_core.wire.codec import Vector
from server.app import Conditions, RunResult, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.ledger import Ledger
from server.record.registry import Registry

CLIENTS, SIZE = 3, 8
Make = Callable[..., Settings]


@pytest.fixture(scope="module")
def deployed(digits_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network as a classifier of the patterns, trained on them as they are."""
    torch.manual_seed(0)
    model = CifarResNet(8, 3)
    data = load_dataset(parse_task(f"npz:{digits_file}"), SIZE)
    images = Preprocess(SIZE)(torch.from_numpy(data.x_train))
    labels = torch.from_numpy(data.y_train)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(25):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("deployed") / "classifier.safetensors"
    save_file(model.state_dict(), path, {"size": str(SIZE)})
    return path


@pytest.fixture
def kept(tiny: Make, deployed: Path, digits_file: Path) -> Make:
    def make(**changed: object) -> Settings:
        values: dict[str, object] = {
            "backbone": f"file:{deployed}",
            "tasks": f"dark=npz:{digits_file}+inverted clean=npz:{digits_file}",
            "head": "backbone",
            "statistics": "recompute",
            "rounds": 2,
        }
        return tiny(**(values | changed))

    return make


def learn(
    settings: Settings, folder: Path, engine: str = "folded", clients: int = CLIENTS
) -> RunResult:
    with server_identity():
        if engine == "folded":
            grid: FoldedGrid | SequentialGrid = FoldedGrid(clients, settings)
        else:
            grid = SequentialGrid(clients, app, settings, folder / "caches")
        return run_federation(
            grid, settings, folder, LogObserver(), conditions=Conditions(patience=0)
        )


@pytest.mark.parametrize(
    "changed", [{}, {"labels": 12}, {"labels": 0, "batch": 32}], ids=["all", "few", "none"]
)
def test_folded_and_sequential_clients_end_alike_with_all_few_and_no_labels(
    kept: Make, tmp_path: Path, changed: dict[str, object]
) -> None:
    settings = kept(**changed)
    with (
        Registry(learn(settings, tmp_path / "one").registry) as one,
        Registry(learn(settings, tmp_path / "other", "sequential").registry) as other,
    ):
        for task in (1, 2):
            here, there = one.coefficients(1, task, 2), other.coefficients(1, task, 2)
            np.testing.assert_allclose(here, there, rtol=0, atol=1e-5)
            assert (here != one.coefficients(1, task, 1)).any()
        assert one.baselines(1) == other.baselines(1)
        assert [a.accuracy for a in one.accuracies(1)] == [a.accuracy for a in other.accuracies(1)]


def test_what_sends_nothing_stands_beside_the_accuracy_and_no_head_travels(
    kept: Make, tmp_path: Path
) -> None:
    result = learn(kept(), tmp_path)
    report = summarise(result, "folded", 0, 1.0)
    for task in report["tasks"]:
        assert set(task["baselines"]) == {"deployed", "statistics", "local head", "either head"}
        assert task["zero_byte_accuracy"] == max(task["baselines"].values())
        assert task["deployed_accuracy"] == task["baselines"]["deployed"]
        assert task["head_only_accuracy"] == task["baselines"]["statistics"]
    dark, clean = report["tasks"]
    assert clean["deployed_accuracy"] > dark["deployed_accuracy"]
    # Where the images are as they were, the statistics that came with the network stay.
    assert clean["baselines"]["statistics"] >= clean["deployed_accuracy"]
    with Registry(result.registry) as registry:
        kinds = {kind for kind, _ in Ledger(registry).totals(result.run, by=("kind", "layer"))}
    assert "head" not in kinds


def test_a_task_starts_at_the_nearest_earlier_one_and_leaves_it_as_it_was(
    kept: Make, digits_file: Path, tmp_path: Path
) -> None:
    dark = f"npz:{digits_file}+inverted"
    tasks = {
        "tasks": f"a={dark} b=npz:{digits_file} again={dark}",
        "learning_rate": 0.05,
        "rounds": 4,
    }
    with (
        Registry(learn(kept(**tasks), tmp_path / "near").registry) as near,
        Registry(learn(kept(**tasks), tmp_path / "other", "sequential").registry) as other,
        Registry(learn(kept(**tasks, begin="bank"), tmp_path / "bank").registry) as bank,
    ):
        first = near.coefficients(1, 1, 4)
        begun, afresh = near.coefficients(1, 3, 1), bank.coefficients(1, 3, 1)
        assert np.abs(begun - first).max() < np.abs(afresh - first).max()
        np.testing.assert_allclose(
            other.coefficients(1, 3, 4), near.coefficients(1, 3, 4), rtol=0, atol=1e-5
        )
        assert np.array_equal(first, bank.coefficients(1, 1, 4))
        own = [a.accuracy for a in near.accuracies(1) if a.task == 1]
        assert own[0] == own[1]
        longest = Ledger(near).longest(1, kind="coefficients", direction="up")
        assert (
            max(longest.values())
            <= min(Ledger(bank).longest(1, kind="coefficients", direction="up").values()) + 2
        )


def test_one_client_of_four_that_starts_elsewhere_moves_the_task_nowhere_and_two_do(
    kept: Make, digits_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = f"a=npz:{digits_file}+inverted b=npz:{digits_file}"
    settings = kept(tasks=tasks, aggregation="mean", learning_rate=0.05, rounds=4)

    def begun(away: int) -> tuple[Vector, Vector]:
        """Coefficients of what was learned first, and of the second task after its first round."""
        left = iter([True] * away)

        def chosen(
            model: object, data: object, vectors: Mapping[int, Vector], *args: object
        ) -> Generator[None, None, int]:
            yield from ()
            return max(vectors) if next(left, False) else 0

        monkeypatch.setattr("client.kept.nearest", chosen)
        result = learn(settings, tmp_path / str(away), clients=4)
        start = result.start.initial_vector.numpy()
        with Registry(result.registry) as registry:
            return registry.coefficients(1, 1, 4) - start, registry.coefficients(1, 2, 1) - start

    first, none = begun(0)
    for away, lowest, highest in ((1, -0.2, 0.2), (2, 0.3, 0.7)):
        again, found = begun(away)
        assert np.array_equal(first, again)
        # How far towards the earlier task all have gone.
        share = float((found - none) @ first / (first @ first))
        assert lowest < share < highest


def test_a_task_of_other_classes_is_refused_with_both_numbers(
    kept: Make, backbone_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecastError, match="the task has 3 classes and the deployed classifier 4"):
        learn(kept(backbone=f"file:{backbone_file}"), tmp_path)


def test_statistics_of_the_clients_need_a_classifier_to_judge_them(tiny: Make) -> None:
    with pytest.raises(RecastError, match=r"statistics recompute and head local: .* head backbone"):
        tiny(statistics="recompute")
    with pytest.raises(RecastError, match="unknown statistics 'batch'"):
        tiny(statistics="batch")


def test_a_registry_from_before_is_completed_when_it_is_opened(kept: Make, tmp_path: Path) -> None:
    path = learn(kept(rounds=1), tmp_path).registry
    with closing(sqlite3.connect(path)) as database:
        # What has come since then.
        later = ("baselines", "recast_version", "label_mixes", "losses", "folders", "writers")
        for table in later:
            database.execute(f"DROP TABLE {table}")
        for column in ("messages", "longest"):
            database.execute(f"ALTER TABLE ledger DROP COLUMN {column}")
        database.execute("ALTER TABLE refusals DROP COLUMN times")
        database.execute("ALTER TABLE accuracies DROP COLUMN recorded")
        database.execute("PRAGMA user_version = 2")
        database.commit()
    with Registry(path) as registry:
        assert registry.baselines(1) == {}
        assert len(registry.accuracies(1)) == 3
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() != (2,)


def test_classes_are_the_deployed_networks_by_name(
    kept: Make, deployed: Path, digits_file: Path, tmp_path: Path
) -> None:
    """A client's file lists the classes in another order: its labels are mapped, not averaged."""
    named = tmp_path / "named.safetensors"
    save_file(load_file(deployed), named, {"size": str(SIZE), "class_names": '["c0", "c1", "c2"]'})
    arrays = dict(np.load(digits_file))
    turned = {"classes": arrays["classes"][::-1]}
    turned |= {name: 2 - arrays[name] for name in ("y_train", "y_test")}
    other = tmp_path / "turned.npz"
    np.savez(other, **(arrays | turned))
    backbone = f"file:{named}"
    found = [
        summarise(
            learn(kept(backbone=backbone, tasks=f"a=npz:{data}"), tmp_path / name), "folded", 0, 1.0
        )["tasks"][0]
        for name, data in (("one", digits_file), ("other", other))
    ]
    assert found[0]["deployed_accuracy"] == found[1]["deployed_accuracy"] > 0.9
    assert found[0]["accuracy"] == found[1]["accuracy"]
    strange = tmp_path / "strange.npz"
    np.savez(strange, **(arrays | {"classes": np.array(["c0", "c1", "dog"])}))
    with pytest.raises(RecastError, match="dog"):
        learn(kept(backbone=backbone, tasks=f"a=npz:{strange}"), tmp_path / "strange")


def test_without_labels_a_task_s_first_round_tells_label_mixes_and_moves_nothing(
    kept: Make, tmp_path: Path
) -> None:
    settings = kept(labels=0, batch=32, rounds=3, partition="dirichlet:0.3", begin="bank")
    result = learn(settings, tmp_path)
    start = result.start.initial_vector.numpy()
    with Registry(result.registry) as registry:
        mixes = registry.label_mixes(1)
        for task in (1, 2):
            assert (registry.coefficients(1, task, 1) == start).all()
            assert (registry.coefficients(1, task, 2) != start).any()
            assert len(mixes[task]) == 3
        sums = Ledger(registry).totals(1, by=("round", "direction", "kind", "layer"))
    listened, trained = (sums[round_, "up", "coefficients", "message"] for round_ in (1, 2))
    assert listened < trained


def test_a_run_without_labels_goes_on_with_the_mix_that_it_heard(
    kept: Make, tmp_path: Path
) -> None:
    settings = kept(labels=0, batch=32, rounds=3, partition="dirichlet:0.3")
    whole = learn(settings, tmp_path / "whole")

    class Stopped(LogObserver):
        def round_finished(self, task: str, round_: int, clients: int, seconds: float) -> None:
            super().round_finished(task, round_, clients, seconds)
            if round_ == 1:
                raise KeyboardInterrupt

    folder = tmp_path / "halves"
    with server_identity(), pytest.raises(KeyboardInterrupt):
        run_federation(
            FoldedGrid(CLIENTS, settings), settings, folder, Stopped(),
            conditions=Conditions(patience=0),
        )  # fmt: skip
    again = learn(settings, folder)
    with Registry(whole.registry) as one, Registry(again.registry) as other:
        assert one.label_mixes(1) == other.label_mixes(1)
        for task in (1, 2):
            assert (one.coefficients(1, task, 3) == other.coefficients(1, task, 3)).all()


def test_what_may_be_told_in_a_sum_or_with_noise_alone_is_not_asked_for_a_mix(
    kept: Make, tmp_path: Path
) -> None:
    for changed in ({"secure_aggregation": True}, {"dp_epsilon": 50.0, "dp": "local"}):
        settings = kept(labels=0, batch=32, tasks=kept().tasks.split()[0], **changed)
        result = learn(settings, tmp_path / next(iter(changed)))
        with Registry(result.registry) as registry:
            assert registry.label_mixes(1) == {}
            assert (registry.coefficients(1, 1, 1) != result.start.initial_vector.numpy()).any()


def test_a_label_mix_of_many_classes_is_no_oversize_update(
    kept: Make, digits_file: Path, tmp_path: Path
) -> None:
    many = [f"c{number}" for number in range(300)]
    arrays = dict(np.load(digits_file))
    np.savez(tmp_path / "many.npz", **(arrays | {"classes": np.array(many)}))
    torch.manual_seed(0)
    path = tmp_path / "many.safetensors"
    save_file(CifarResNet(8, len(many)).state_dict(), path, {"size": str(SIZE)})
    settings = kept(
        labels=0,
        batch=32,
        rounds=2,
        tasks=f"t=npz:{tmp_path / 'many.npz'}",
        backbone=f"file:{path}",
    )
    with Registry(learn(settings, tmp_path / "run").registry) as registry:
        assert len(registry.label_mixes(1)[1]) == len(many)
        assert registry.refusals(1) == []
