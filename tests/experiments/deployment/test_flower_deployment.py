"""Flower's deployment runtime with real processes: SuperLink, SuperNodes and `flwr run`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from experiments.command.watch import standing
from experiments.measure.certificates import make_node_key
from experiments.measure.flower import FlowerDeployment
from experiments.measure.relay import Counted, Relays
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.record.registry import Registry

OLDEST, CURRENT = "1.38.0", version("flwr")
CLASSES = 3
SECONDS = 1200.0
Deploy = Callable[..., FlowerDeployment]


def programs_of(release: str, folder: Path) -> Path:
    """Flower's programs of another release, in an environment that shares everything else."""
    if release == CURRENT:
        return Path(sys.executable).parent
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    shared = [path for path in sys.path if path.endswith("site-packages")]
    # By name of the function, so that an editable install of ours, which is a .pth itself, counts.
    lines = [f"import site; site.addsitedir({path!r})\n" for path in shared]
    (own / "shared.pth").write_text("".join(lines))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install",
         "--quiet", "--no-deps", f"flwr=={release}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"flwr {release} cannot be installed here: {done.stderr.strip()[-200:]}")
    return folder / "bin"


def own_data(folder: Path, name: str, seed: int) -> None:
    """A client's own images of a task, in the folder that its SuperNode is given."""
    random = np.random.default_rng(0)
    patterns = random.integers(60, 200, (CLASSES, 8, 8))
    arrays: dict[str, np.ndarray] = {"classes": np.array([f"c{i}" for i in range(CLASSES)])}
    for part, count in (("train", 48), ("test", 24)):
        labels = np.arange(count) % CLASSES
        noise = np.random.default_rng([seed, count]).normal(0, 40, (count, 8, 8))
        arrays[f"x_{part}"] = (patterns[labels] + noise).clip(0, 255).astype(np.uint8)
        arrays[f"y_{part}"] = labels
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{name}.npz", **arrays)


def turn(file: Path) -> None:
    """The same images where the classes are listed the other way round, so that ids differ."""
    arrays = dict(np.load(file))
    last = len(arrays["classes"]) - 1
    arrays["classes"] = arrays["classes"][::-1]
    for part in ("y_train", "y_test"):
        arrays[part] = last - arrays[part]
    np.savez(file, **arrays)


@pytest.fixture
def classifier(tmp_path: Path) -> str:
    """A network of the patterns' classes, which names them: clients keep its head."""
    torch.manual_seed(0)
    path = tmp_path / "classifier.safetensors"
    about = {"size": "8", "class_names": '["c0", "c1", "c2"]'}
    save_file(CifarResNet(8, CLASSES).state_dict(), path, about)
    return f"file:{path}"


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    opened: list[FlowerDeployment] = []
    with Relays() as relays:

        def make(
            clients: int, release: str = version("flwr"), **options: object
        ) -> FlowerDeployment:
            programs = programs_of(release, tmp_path / "environment")
            deployment = FlowerDeployment(
                tmp_path / "flower", relays, clients,
                flwr=release, programs=programs, **options,  # type: ignore[arg-type]
            )  # fmt: skip
            opened.append(deployment)
            return deployment

        try:
            yield make
        finally:
            for deployment in opened:
                deployment.stop()


def finish(deployment: FlowerDeployment) -> list[Counted]:
    """Run to the end; what each relay counted meanwhile."""
    before = [relay.counted() for relay in deployment.relays]
    deployment.begin()
    deadline = time.monotonic() + SECONDS
    while deployment.running():
        assert time.monotonic() < deadline, "the run takes too long"
        time.sleep(0.1)
    return [relay.counted() - then for relay, then in zip(deployment.relays, before, strict=True)]


def banks_sent(run_dir: Path) -> int:
    told = standing(run_dir / "registry.sqlite")["clients"]
    assert {one["state"] for one in told} <= {"working", "idle"}
    assert [one["up"] > 0 for one in told] == [True]
    with Registry(run_dir / "registry.sqlite") as registry:
        (run,) = registry.runs()
        assert run.status == "finished"
        assert Ledger(registry).refusals(run.id) == {}
        return Ledger(registry).totals(run.id, by=("kind", "layer")).get(("bank", "payload"), 0)


def test_the_bank_crosses_once_whatever_restarts_and_wherever_the_registry_is(
    deploy: Deploy, tiny: Callable[..., Settings], tmp_path: Path, database: str
) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    own_data(data, "a", seed=1)
    config = {"data-dir": str(data), "cache-dir": str(cache), "client-number": 0}
    deployment = deploy(1, secure=True, node_config=[config])
    deployment.start(tiny(tasks="a=digits", run_dir=str(tmp_path / "first")))
    deployment.join(0)
    (counted,) = finish(deployment)
    (bank,) = (tmp_path / "first").glob("bank-*.safetensors")
    size = bank.stat().st_size
    assert banks_sent(tmp_path / "first") == size
    assert counted.down > size
    assert [path.stat().st_size for path in cache.iterdir()] == [size]

    # Not killed: the SuperLink would refuse the node until it had missed its heartbeats.
    deployment.stop_client(0)
    deployment.stop_server(kill=True)
    # A head that travels, and a registry in PostgreSQL, whose password the ServerApp inherits.
    more = {"head": "means", "baseline": False, "registry": database}
    deployment.start(tiny(tasks="a=digits", run_dir=str(tmp_path / "second"), **more))
    deployment.join(0)
    (counted,) = finish(deployment)
    assert banks_sent(tmp_path / "second") == 0
    # Of a slow run most is what SuperNodes ask for every few seconds.
    assert counted.down < size
    assert not (tmp_path / "second" / "registry.sqlite").exists()
    assert (tmp_path / "second" / "registry.url").read_text().split()[0] == database
    with (
        Registry(tmp_path / "first" / "registry.sqlite") as one,
        Registry(tmp_path / "second" / "registry.sqlite") as other,
    ):
        np.testing.assert_allclose(
            one.coefficients(1, 1), other.coefficients(1, 1), rtol=0, atol=1e-5
        )
        assert one.accuracies(1)[0].examples == 24
        assert other.accuracies(1)[0].examples == 24
        assert other.head(1, 1) is not None


def test_a_supernode_without_a_registered_key_is_not_let_in(
    deploy: Deploy, tiny: Callable[..., Settings], tmp_path: Path
) -> None:
    deployment = deploy(1, secure=True)
    deployment.start(tiny())
    make_node_key(tmp_path / "flower" / "keys", "client-0")
    with pytest.raises(RecastError, match="supernode-0 ended with code"):
        deployment.join(0)


HIDDEN = {"head": "backbone", "secure_aggregation": True}


@pytest.mark.parametrize(
    ("release", "clients", "changed"),
    [(OLDEST, 2, {"head": "means", "baseline": False}), (CURRENT, 3, HIDDEN)],
    ids=[OLDEST, f"{CURRENT}-hidden"],
)
def test_every_supported_flower_ends_in_the_coefficients_of_the_engines(
    deploy: Deploy,
    tiny: Callable[..., Settings],
    classifier: str,
    deal: Callable[[Settings, int, Path], list[Path]],
    coefficients: Callable[[Path], list[Any]],
    alone: Callable[..., Path],
    tmp_path: Path,
    release: str,
    clients: int,
    changed: dict[str, Any],
) -> None:
    settings = tiny(
        rounds=2, tasks=tiny().tasks.split()[0], run_dir=str(tmp_path / "run"),
        backbone=classifier, max_lag=0.0, **changed,
    )  # fmt: skip
    folders = deal(settings, clients, tmp_path / "data")
    turn(folders[1] / "a.npz")
    node_config = [
        {
            "data-dir": str(folder),
            "cache-dir": str(tmp_path / f"cache-{number}"),
            "client-number": number,
        }
        for number, folder in enumerate(folders)
    ]
    deployment = deploy(clients, release=release, node_config=node_config)
    deployment.start(settings)
    for number in range(clients):
        deployment.join(number)
    counted = finish(deployment)
    undisturbed = alone(settings, clients)
    for here, there in zip(coefficients(tmp_path / "run"), coefficients(undisturbed), strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-5)
    with Registry(undisturbed / "registry.sqlite") as registry:
        (right,) = registry.accuracies(1)
    with Registry(tmp_path / "run" / "registry.sqlite") as registry:
        (run,) = registry.runs()
        assert run.versions["flwr"] == release
        # A head of all clients' classes, whose ids differ: by name, or a part of it is wrong.
        assert registry.class_lists(1) == {1: ("c0", "c1", "c2")}
        (found,) = registry.accuracies(1)
        assert (found.examples, found.accuracy) == (right.examples, right.accuracy)
        assert [entry.clients for entry in registry.rounds(1, 1)] == [clients, clients]
        assert Ledger(registry).refusals(1) == {}
        totals = Ledger(registry).totals(1, by=("direction", "layer"))
        kinds = Ledger(registry).totals(1, by=("direction", "kind", "layer"))
    assert (("up", "shares", "payload") in kinds) == settings.secure_aggregation
    assert sum(one.up for one in counted) > totals["up", "message"]
    assert sum(one.down for one in counted) > totals["down", "message"]
