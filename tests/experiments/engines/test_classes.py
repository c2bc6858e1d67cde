"""Class ids mean the same class on every client and on the server, by name (invariant 8)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from PIL import Image

from client.app import app
from experiments.engines.folded import FoldedGrid
from experiments.engines.sequential import SequentialGrid
from protos import recast_v1_pb2 as pb
from protos.flower import RUN_ID
from recast_core.classes import list_hash
from recast_core.settings import Settings
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.ledger import Ledger
from server.record.registry import Registry

SIZE = 8
Make = Callable[..., Settings]
FLOWERS = (
    "aster", "begonia", "crocus", "daisy", "elder", "freesia", "gentian", "hyssop", "iris",
    "jasmine",
)  # fmt: skip
PETS = ("bird", "cat", "dog")


def images(name: str, count: int, seed: int) -> np.ndarray:
    """Noisy images of the pattern that a class has by its name."""
    known = (*FLOWERS, *PETS)
    pattern = np.random.default_rng(known.index(name.lower())).integers(0, 256, (SIZE, SIZE))
    noise = np.random.default_rng([seed, len(name), count]).normal(0, 25, (count, SIZE, SIZE))
    return (pattern + noise).clip(0, 255).astype(np.uint8)


def write_npz(folder: Path, names: Sequence[str], seed: int, holds: Sequence[str] = ()) -> Path:
    """A client's data folder: 12 training and 6 test images of each class that it holds."""
    folder.mkdir(parents=True)
    arrays: dict[str, Any] = {"classes": np.array(names)}
    present = [name for name in names if name in (holds or names)]
    for part, count in (("train", 12), ("test", 6)):
        arrays[f"x_{part}"] = np.concatenate([images(n, count, seed) for n in present])
        arrays[f"y_{part}"] = np.repeat([list(names).index(n) for n in present], count)
    np.savez(folder / "t.npz", **arrays)
    return folder


def write_folders(folder: Path, names: Sequence[str], seed: int) -> Path:
    for name in names:
        for index, image in enumerate(images(name, 15, seed)):
            path = folder / "t" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


class OwnDataGrid(SequentialGrid):
    """Clients with data folders of their own, some of which may come later."""

    def __init__(self, folders: Sequence[Path], settings: Settings, caches: Path) -> None:
        super().__init__(len(folders), app, settings, caches)
        self.hellos: list[tuple[int, pb.HelloRequest, int]] = []
        for index, folder in enumerate(folders):
            config = {
                "data-dir": str(folder), "cache-dir": str(caches / f"c{index}"),
                "client-number": index,
            }  # fmt: skip
            self._contexts[index + 1] = Context(
                run_id=RUN_ID, node_id=index + 1, node_config=config, state=RecordDict(),
                run_config=dict(settings.as_dict()),
            )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    accuracy: float
    head_only: float | None
    classes: tuple[str, ...]
    clients: int
    refusals: list[tuple[str, str, str]]
    control_up: int


def learn(
    tiny: Make, folder: Path, grid: Any, settings: Settings, known: tuple[str, ...] | None = None
) -> Outcome:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with server_identity():
        run_federation(
            grid,
            settings,
            folder,
            LogObserver(),
            conditions=Conditions(patience=0.0, classes_of=lambda source: known),
        )
    with Registry(folder / "registry.sqlite") as registry:
        (found,) = registry.accuracies(1)
        totals = Ledger(registry).totals(1, by=("kind", "direction", "layer"))
        return Outcome(
            found.accuracy,
            found.head_only_accuracy,
            registry.class_lists(1).get(1, ()),
            found.clients,
            [(r.client, r.reason, r.detail) for r in registry.refusals(1)],
            totals["control", "up", "message"],
        )


@pytest.fixture
def federation(tiny: Make, tmp_path: Path) -> Callable[..., Outcome]:
    def go(
        folders: Sequence[Path], head: str, known: tuple[str, ...] | None = None, name: str = "run"
    ) -> Outcome:
        settings = tiny(tasks="t=npz:nowhere.npz", head=head, epochs=2)
        grid = OwnDataGrid(folders, settings, tmp_path / name / "caches")
        return learn(tiny, tmp_path / name, grid, settings, known)

    return go


Federate = Callable[..., Outcome]


@pytest.mark.parametrize("head", ["means", "ridge", "shared", "local"])
def test_lists_in_another_order_cost_no_accuracy(
    federation: Federate, tmp_path: Path, head: str
) -> None:
    same = [write_npz(tmp_path / f"same{i}", FLOWERS, i) for i in range(2)]
    turned = [write_npz(tmp_path / "turned0", FLOWERS, 0)]
    turned.append(write_npz(tmp_path / "turned1", [*FLOWERS[3:], *FLOWERS[:3]], 1))
    wanted = federation(same, head, name="same")
    found = federation(turned, head, name="turned")
    assert found.classes == wanted.classes == FLOWERS
    assert found.accuracy == pytest.approx(wanted.accuracy, abs=0.02)
    assert found.accuracy > 0.9
    assert not found.refusals


@pytest.mark.parametrize("head", ["means", "ridge", "shared"])
def test_folders_of_other_classes_make_one_task(
    federation: Federate, tmp_path: Path, head: str
) -> None:
    folders = [
        write_folders(tmp_path / "a", ["cat", "dog"], 0),
        write_folders(tmp_path / "b", ["bird", "cat"], 1),
    ]
    found = federation(folders, head)
    assert found.classes == PETS
    assert found.accuracy > 0.95
    assert found.clients == 2


@pytest.mark.parametrize("head", ["means", "ridge", "shared"])
def test_five_flowers_each_are_a_task_of_ten(
    federation: Federate, tmp_path: Path, head: str
) -> None:
    folders = [
        write_folders(tmp_path / "a", FLOWERS[::2], 0),
        write_folders(tmp_path / "b", FLOWERS[1::2], 1),
    ]
    found = federation(folders, head)
    assert found.classes == FLOWERS
    assert found.accuracy > 0.9


def test_npz_and_folders_and_parts_of_a_list_go_together(
    federation: Federate, tmp_path: Path
) -> None:
    folders = [
        write_npz(tmp_path / "a", FLOWERS[::-1], 0, holds=FLOWERS[:4]),
        write_folders(tmp_path / "b", FLOWERS[2:7], 1),
        write_npz(tmp_path / "c", FLOWERS, 2),
    ]
    found = federation(folders, "means")
    assert (found.classes, found.clients, found.refusals) == (FLOWERS, 3, [])
    assert found.accuracy > 0.9


def test_what_the_server_knows_is_the_list_and_a_strange_class_is_refused_by_name(
    federation: Federate, tmp_path: Path
) -> None:
    folders = [
        write_folders(tmp_path / "a", ["cat", "dog"], 0),
        write_folders(tmp_path / "b", ["bird", "cat"], 1),
        write_npz(tmp_path / "c", ["cat", "dog", "bird"], 2, holds=["cat", "dog"]),
    ]
    found = federation(folders, "means", known=("dog", "cat"))
    assert found.classes == ("dog", "cat")
    assert found.clients == 2  # a list may hold what its images do not
    assert found.accuracy > 0.95
    ((client, reason, detail),) = found.refusals
    assert (client, reason) == ("2", "classes")
    assert "'bird' is none of the task's 2 (dog, cat)" in detail


def test_one_class_in_two_spellings_is_refused_and_not_two_classes(
    federation: Federate, tmp_path: Path
) -> None:
    folders = [
        write_folders(tmp_path / "a", ["cat", "dog"], 0),
        write_folders(tmp_path / "b", ["bird", "cat"], 1),
        write_folders(tmp_path / "c", ["Cat", "dog"], 2),
    ]
    found = federation(folders, "means")
    assert found.classes == PETS
    assert found.clients == 2
    ((client, reason, detail),) = found.refusals
    assert (client, reason) == ("3", "classes")
    assert "'Cat' is 'cat' in the task" in detail


@pytest.mark.parametrize("known", [None, ("cat", "dog")])
def test_a_class_that_looks_like_another_clients_is_told(
    federation: Federate,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    known: tuple[str, ...] | None,
) -> None:
    folders = [write_folders(tmp_path / str(i), ["cat", "dog"], i) for i in range(3)]
    (folders[2] / "t" / "cat").rename(folders[2] / "t" / "c\u0430t")
    found = federation(folders, "means", known)
    if known is None:
        assert found.classes == ("cat", "c\u0430t", "dog")
        assert "classes 'cat' and 'c\u0430t' (CYRILLIC SMALL LETTER A) look alike" in caplog.text
        return
    ((client, reason, detail),) = found.refusals
    assert (client, reason) == ("3", "classes")
    assert "'c\u0430t' looks like 'cat' of the task and is not" in detail


def test_a_list_that_names_a_class_twice_counts_only_among_its_like(
    federation: Federate, tmp_path: Path
) -> None:
    twice = ["cat", "dog", "cat"]
    both = [write_npz(tmp_path / f"twice{i}", twice, i) for i in range(2)]
    assert not federation(both, "means", name="alike").refusals
    mixed = [*both, write_folders(tmp_path / "c", ["bird", "cat"], 2)]
    found = federation(mixed, "means", name="mixed")
    assert {client for client, *_ in found.refusals} == {"1", "2"}
    assert all("two classes are named 'cat'" in detail for *_, detail in found.refusals)


def test_on_the_folded_engine_ids_of_another_list_are_mapped_too(
    tiny: Make, tmp_path: Path
) -> None:
    source = write_npz(tmp_path / "data", FLOWERS, 0) / "t.npz"
    found = {}
    for engine in ("folded", "sequential"):
        for order in (FLOWERS, FLOWERS[::-1]):
            settings = tiny(tasks=f"t=npz:{source}", head="means", epochs=2)
            folder = tmp_path / f"{engine}-{order[0]}"
            grid = (
                FoldedGrid(3, settings)
                if engine == "folded"
                else SequentialGrid(3, app, settings, folder / "caches")
            )
            found[engine, order[0]] = learn(tiny, folder, grid, settings, order)
            assert found[engine, order[0]].classes == order
    assert len({one.accuracy for one in found.values()}) == 1
    assert next(iter(found.values())).accuracy > 0.8
    assert not any(one.refusals for one in found.values())


def test_a_greeting_of_ten_classes_stays_under_100_bytes_where_lists_agree() -> None:
    bank = pb.BankRef(sha256=bytes(range(32)), size=389_104)
    task = pb.Task(
        id=1, name="flowers", source="flowers=npz:flowers.npz", class_hash=list_hash(FLOWERS)
    )
    request = pb.ToClient(hello=pb.HelloRequest(bank=bank, tasks=[task]))
    assert request.ByteSize() < 100
    told = pb.TaskData(
        task=1, train_examples=5000, test_examples=1000, classes=10, local_classes=10,
        class_hash=list_hash(FLOWERS),
    )  # fmt: skip
    reply = pb.ToServer(hello=pb.Hello(holds_bank=True, client=4_000_000_000, tasks=[told]))
    assert reply.ByteSize() < 100


def test_names_travel_once_and_where_lists_agree_from_one_client_alone(
    federation: Federate, tmp_path: Path
) -> None:
    same = [write_npz(tmp_path / f"same{i}", FLOWERS, i) for i in range(3)]
    known = federation(same, "local", known=FLOWERS, name="known")
    asked = federation(same, "local", name="asked")
    names = sum(len(name) + 2 for name in FLOWERS)
    # A second greeting of one client, with the names: no more than that.
    assert names < asked.control_up - known.control_up < names + 60
