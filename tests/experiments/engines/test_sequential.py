"""The reference engine: tasks never touch one another, and a seed decides every bit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Message

from client.app import app
from client.data import load_dataset, parse_task
from client.learners import attached
from experiments.engines.sequential import SequentialGrid
from recast_core.errors import RecastError
from recast_core.fitting import features_of
from recast_core.heads.ridge import ridge_head
from recast_core.settings import Settings
from server.app import run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.registry import Registry

CLIENTS = 3


class Backwards(SequentialGrid):
    """Nodes are found, and answer, in the opposite order."""

    def get_node_ids(self) -> Iterable[int]:
        return list(super().get_node_ids())[::-1]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return list(super().pull_messages(list(message_ids)))[::-1]


@dataclass
class Run:
    folder: Path
    coefficients: dict[str, bytes]
    accuracies: list[tuple[int, int, float]]

    @property
    def bank(self) -> Path:
        (path,) = self.folder.glob("bank-*.safetensors")
        return path


@pytest.fixture(autouse=True)
def _server() -> Iterator[None]:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with server_identity():
        yield


@pytest.fixture
def learn(tiny: Callable[..., Settings], tmp_path: Path) -> Callable[..., Run]:
    def go(
        name: str,
        grid: type[SequentialGrid] = SequentialGrid,
        observer: LogObserver | None = None,
        **changed: object,
    ) -> Run:
        folder = tmp_path / name
        settings = tiny(rounds=2, partition="dirichlet:1", **changed)
        made = grid(CLIENTS, app, settings, folder / "caches")
        run_federation(made, settings, folder, observer or LogObserver())
        with Registry(folder / "registry.sqlite") as registry:
            return Run(
                folder,
                {t.name: registry.coefficients(1, t.number).tobytes() for t in registry.tasks(1)},
                [(a.task, a.after_task, a.accuracy) for a in registry.accuracies(1)],
            )

    return go


def one_task(tiny: Callable[..., Settings]) -> str:
    return tiny().tasks.split()[0]


def test_learning_a_second_task_leaves_the_first_bit_identical(
    learn: Callable[..., Run], tiny: Callable[..., Settings]
) -> None:
    alone, both = learn("alone", tasks=one_task(tiny)), learn("both")
    assert list(alone.coefficients) == ["a"]
    assert list(both.coefficients) == ["a", "b"]
    assert both.coefficients["a"] == alone.coefficients["a"]
    assert both.coefficients["b"] != both.coefficients["a"]
    first = [accuracy for task, after, accuracy in both.accuracies if task == 1]
    assert len(first) == 2
    assert first[0] == first[1]


class Snapshot(LogObserver):
    """Predicts with task a as soon as it is learned, by the model that then learns task b."""

    def __init__(self, predict: Callable[[], torch.Tensor]) -> None:
        self.predict = predict
        self.first: torch.Tensor | None = None

    def evaluated(self, task: str, accuracy: float, head_only: float | None, clients: int) -> None:
        if task == "a" and self.first is None:
            self.first = self.predict()


def test_learning_a_second_task_leaves_the_firsts_predictions_bit_identical(
    learn: Callable[..., Run], tiny: Callable[..., Settings], tmp_path: Path
) -> None:
    spec = parse_task(one_task(tiny))

    def predict() -> torch.Tensor:
        with Registry(tmp_path / "run" / "registry.sqlite") as registry:
            vector = registry.coefficients(1, 1)
        (bank,) = (tmp_path / "run" / "caches" / "0").glob("*.safetensors")
        model, preprocess = attached(tiny(), bank)
        net = model.net
        net.coefficients.load(torch.from_numpy(vector.copy()))
        data = load_dataset(spec, preprocess.size)
        labels = torch.from_numpy(data.y_train)
        head = ridge_head(features_of(net, preprocess(data.x_train)), labels, 3)
        return head(features_of(net, preprocess(data.x_test)))

    observer = Snapshot(predict)
    learn("run", observer=observer)
    assert observer.first is not None
    assert torch.equal(predict(), observer.first)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    learn: Callable[..., Run],
) -> None:
    one, again, other = learn("one"), learn("again"), learn("other", seed=1)
    assert one.coefficients == again.coefficients
    assert one.accuracies == again.accuracies
    assert one.bank.read_bytes() == again.bank.read_bytes() == other.bank.read_bytes()
    assert one.coefficients["a"] != other.coefficients["a"]


def test_the_order_of_nodes_and_replies_does_not_change_a_bit(learn: Callable[..., Run]) -> None:
    assert learn("one").coefficients == learn("back", grid=Backwards).coefficients


def test_coefficients_move_and_stay_finite(learn: Callable[..., Run]) -> None:
    run = learn("one")
    for vector in run.coefficients.values():
        values = np.frombuffer(vector, "<f4")
        assert np.isfinite(values).all()
        assert not np.isin(values, (0, 1)).all(), "own-weight banks start at zeros and ones"


def test_a_client_that_crashes_is_an_error_reply(
    learn: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr("client.answer.update_of", crash)
    with pytest.raises(RecastError, match="boom"):
        learn("crash")
    with Registry(tmp_path / "crash" / "registry.sqlite") as registry:
        refusals = registry.refusals(1)
        assert {refusal.reason for refusal in refusals} == {"client-error"}
        assert len(refusals) == CLIENTS
        assert "boom" in refusals[0].detail
