"""Every command in every document runs as it is written, shortened by added options only."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torchvision import models

from experiments.measure.relay import free_port
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.settings import Settings
from tests.documents import ROOT, Command, Reader, commands, documents

# One quick pass; the last of an option that is given twice counts.
_SHORT = "--clients 2 --rounds 1 --epochs 1"
_TINY = "--backbone file:tiny.safetensors --target layer?.0.conv*"
ADDED = {
    "recast simulate": f"{_SHORT} {_TINY}",
    "recast simulate --backbone": _SHORT,
    "recast simulate --engine ray": f"{_SHORT} {_TINY} --tasks digits",
    "recast simulate --secure-aggregation": f"--clients 3 --rounds 1 --epochs 1 {_TINY}",
    "recast simulate --clients 50": f"--clients 4 --rounds 1 --epochs 1 {_TINY}",
    "recast serve": "--listen 127.0.0.1:9441 --rounds 1 --epochs 1",
    "recast bank": (
        "--data digits[:5%] --holdout '' --shifts fog,gauss --sources 2 --epochs 1 --sections 2 "
        "--directions 2"
    ),
    "recast simulate --backbone digits": _SHORT,
    "python -m experiments.studies.task_vector_banks": "--donors digits@0-1",
    "python -m experiments.studies.comparison": (
        "--clients 2 --rounds 1 --seeds 0 --tasks digits@0-2 --only 'head only, local'"
    ),
    "python -m experiments.studies.privacy": "--quick",
    "python experiments/studies/second_task.py": "--small",
    "python -m experiments.studies.tasks --images": "--quick --tasks digits@0-2",
    "python -m experiments.studies.tasks_banks": "--draw 1 --shapes 1:1x1 --epochs 1",
    "python -m experiments.studies.one_round": (
        "--tasks digits[:20%]@0-2 --clients 2 --seeds 0 --images 60"
    ),
}
NEEDS_GPU = "a GPU"
SKIPPED: dict[str, str] = {
    "recast simulate --ray": "a Ray cluster; tests/experiments/engines/test_crew.py has one",
    ".venv/bin/python -m pytest": "this very test suite",
    ".venv/bin/recast simulate": "run below, by the recast of this environment",
    "flwr federation": "a running SuperLink: tests/experiments/deployment",
    "flwr run": "a running SuperLink: tests/experiments/deployment",
    "flwr supernode": "a running SuperLink: tests/experiments/deployment",
    "flower-superlink": "tests/experiments/deployment",
    "flower-supernode": "tests/experiments/deployment",
    "export ": "a setting of the shell",
    "python -m experiments.studies.paper": "downloads: tests/experiments/studies/test_paper.py",
    "python -m experiments.studies.shifts": "weights: tests/experiments/studies/test_shifts.py",
    "python -m experiments.studies.shift_sources": "weights: studies/test_shift_sources.py",
    "python -m experiments.studies.peers": "tests/experiments/studies/test_peers.py",
    "python -m experiments.studies.peers_target": "tests/experiments/studies/test_peers_target.py",
    "systemctl": "a service manager",
    "mosquitto ": "a service: tests/experiments/mqtt",
    "recast serve --lorawan": "a broker: tests/experiments/lorawan",
    "python -m experiments.studies.lorawan": "tests/experiments/lorawan",
    "recast serve --mqtt": "a broker: tests/experiments/measure/test_measure_mqtt.py",
    "recast join --mqtt": "a broker: tests/experiments/measure/test_measure_mqtt.py",
    "python -m experiments.studies.chaos_mqtt": "tests/experiments/studies/test_chaos_mqtt.py",
    "createdb": "a database: tests/experiments/command/test_postgres_runs.py",
    "recast serve --registry": "a database: tests/experiments/command/test_postgres_runs.py",
}
if not torch.cuda.is_available():
    SKIPPED["recast simulate --bf16"] = NEEDS_GPU
    SKIPPED["python -m experiments.studies.folded_speed"] = NEEDS_GPU
    SKIPPED["python -m experiments.studies.folded_survey"] = NEEDS_GPU
if importlib.util.find_spec("ray") is None:
    SKIPPED["recast simulate --engine ray"] = "the extra ray"


def digits(classes: int = 10, count: int = 120) -> dict[str, np.ndarray]:
    found = load_digits()
    chosen = np.flatnonzero(found.target < classes)[: 2 * count]
    images = (found.images[chosen] * 15.9).astype(np.uint8)
    labels = found.target[chosen]
    names = np.array([str(number) for number in range(classes)])
    return {
        "x_train": images[:count], "y_train": labels[:count], "x_test": images[count:],
        "y_test": labels[count:], "classes": names,
    }  # fmt: skip


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documents take for granted: files of the reader's own, and a run of last January."""
    folder = tmp_path_factory.mktemp("reader")
    torch.manual_seed(0)
    save_file(CifarResNet(8, 4).state_dict(), folder / "tiny.safetensors", {"size": "8"})
    vit = models.VisionTransformer(8, 4, 6, 2, 16, 32, num_classes=4)
    save_file(vit.state_dict(), folder / "vit.safetensors", {"num_heads": "2"})
    for name in ("flowers", "signs"):
        np.savez(folder / f"{name}.npz", **digits(3))
    for number in range(1, 5):
        data = folder / f"edge-{number}" / "data"
        data.mkdir(parents=True)
        np.savez(data / "flowers.npz", **digits(3))
        for name in ("digits", "digits-inverted"):
            np.savez(data / f"{name}.npz", **digits())
    for name in ("one", "two"):
        Image.fromarray(digits()["x_test"][len(name)]).save(folder / f"{name}.png")
    corrupted = folder / "CIFAR-10-C"
    corrupted.mkdir()
    random = np.random.default_rng(0)
    for name in ("motion_blur", "frost"):
        np.save(corrupted / f"{name}.npy", random.integers(0, 256, (500, 32, 32, 3), np.uint8))
    np.save(corrupted / "labels.npy", np.tile(np.arange(100) % 10, 5))
    for kind in ("n01440764", "n01443537"):
        images = folder / "ImageNet-C" / "gaussian_noise" / "3" / kind
        images.mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(images / f"{number}.jpeg")
    return folder


@pytest.fixture
def reader(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    folder = tmp_path / "reader"
    shutil.copytree(prepared, folder)
    # The hub of this test gives random weights.
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda url, *args, **options: models.get_model(
            re.split(r"[-/]", url)[-2], weights=None
        ).state_dict(),
    )
    made = Reader(folder, ADDED, SKIPPED, free_port())
    try:
        yield made
    finally:
        made.stop()


def run_of_january(reader: Reader) -> None:
    """The run that ``runs/20260101-120000`` stands for, and a measurement beside it."""
    text = "recast simulate --run-dir runs/20260101-120000 --tasks"
    reader.run(Command("before", (*text.split(), "digits digits+inverted"), {}, False))
    (reader.folder / "measure.json").write_text('{"rows": []}')


WITH_COMMANDS = [path for path in documents() if commands(path)]


@pytest.mark.parametrize("document", WITH_COMMANDS, ids=lambda path: path.name)
def test_the_commands_of_a_document_run_in_order(document: Path, reader: Reader) -> None:
    found = commands(document)
    if any("runs/" in command.text or "tasks list" in command.text for command in found):
        run_of_january(reader)
    if document.name == "extending.md":
        examples = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", document.read_text(), re.S)
        assert [name for name, _ in examples] == ["median.py", "parts.py"]
        for name, text in examples:
            (reader.folder / name).write_text(text)
    for command in found:
        reader.run(command)
    reader.finish()


def test_nothing_is_left_out_but_what_is_named() -> None:
    """A new kind of command is either run or has a reason."""
    known = ("recast ", "python ", "python3 ", "pip ", ".venv/bin/", "ssh-keygen ", *SKIPPED)
    for document in documents():
        for command in commands(document):
            assert command.text.startswith(known), f"{command.where}: {command.text}"
            assert "..." not in command.words, f"{command.where}: {command.text}"


def test_files_and_tests_that_documents_name_are_there() -> None:
    pattern = re.compile(r"`((?:tests|experiments|docs|recast_core|server|client)/[\w/.]+\.\w+)`")
    for document in [*documents(), ROOT / "ARCHITECTURE.md"]:
        for path in pattern.findall(document.read_text()):
            assert (ROOT / path).exists(), f"{document.name}: {path}"


def test_the_configuration_of_a_flower_run_is_one() -> None:
    found = []
    for document in documents():
        for command in commands(document):
            if "--run-config" in command.words:
                text = command.words[command.words.index("--run-config") + 1]
                config: dict[str, Any] = tomllib.loads(re.sub(r" (?=[a-z-]+=)", "\n", text))
                found.append(Settings.from_mapping(config))
    assert [settings.tasks for settings in found][-1] == "npz:flowers.npz"


def test_the_certificate_of_a_superlink_names_loopback(reader: Reader) -> None:
    from cryptography import x509

    (command,) = [
        c for c in commands(ROOT / "docs" / "flower.md") if c.text.startswith("recast certs init")
    ]
    reader.run(command)
    certificate = x509.load_pem_x509_certificate(
        (reader.folder / "certs" / "server.pem").read_bytes()
    )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "127.0.0.1" in map(str, names.get_values_for_type(x509.IPAddress))
    text = (ROOT / "docs" / "flower.md").read_text()
    for name in re.findall(r"certs/(\w+\.\w+)", text):
        assert (reader.folder / "certs" / name).is_file()
