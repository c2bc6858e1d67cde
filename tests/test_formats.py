"""Files and messages that version 0.1 wrote are read by this one, number for number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recast
from protos import recast_v1_pb2 as pb
from recast_core.wire.messages import from_broadcast, from_update

OLD = Path(__file__).parent / "formats" / "0.1"


@pytest.fixture(scope="module")
def wanted() -> Any:
    return json.loads((OLD / "expected.json").read_text())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> recast.Run:
    """A copy: opening a registry of an older schema completes it."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return recast.open_run("run")


def test_a_registry_of_0_1_is_read(run: recast.Run, wanted: Any) -> None:
    assert (run.status, list(run.tasks["name"]), len(run.history)) == ("finished", ["a"], 2)
    assert list(run.history["bytes_up"]) == wanted["bytes_up"]
    assert list(run.evaluations["accuracy"]) == wanted["accuracy"]
    sent = run.model("a").coefficients.sent().numpy()
    assert np.array_equal(sent, np.array(wanted["vector"], np.float32))
    assert run.library().list() == ["a"]
    assert run.report("page.html").exists()


def test_a_bank_of_0_1_is_read_and_is_still_the_same_bank(run: recast.Run, wanted: Any) -> None:
    assert run.bank.sha256.hex() == wanted["bank"]
    again = recast.mimic(
        recast.load_backbone("glyph_resnet20").model, recast.RecastConfig(target="layer1.0.conv*")
    )
    assert again.sent == run.bank.sent


def test_a_library_of_0_1_is_read(wanted: Any) -> None:
    tasks = recast.TaskLibrary.from_pretrained(OLD / "library")
    assert tasks.list() == ["a"]
    assert tasks["a"].classes == ("c0", "c1", "c2")
    assert tasks["a"].coefficients.tolist() == wanted["vector"]
    assert tasks.about.figures["a"]["accuracy"] == wanted["accuracy"][0]


def test_messages_of_0_1_are_read(run: recast.Run) -> None:
    told, bank = json.loads((OLD / "wire.json").read_text()), run.bank
    down = pb.ToClient.FromString(bytes.fromhex(told["broadcast"]["hex"])).train
    assert from_broadcast(bank, down).tolist() == told["broadcast"]["vector"]
    up = pb.ToServer.FromString(bytes.fromhex(told["update"]["hex"])).update
    assert (up.task, up.round, up.examples) == (1, 2, told["update"]["examples"])
    assert from_update(bank, up, told["update"]["bits"]).tolist() == told["update"]["offsets"]
    found = pb.ToServer.FromString(bytes.fromhex(told["evaluation"]["hex"])).evaluation
    assert (found.examples, found.correct) == (12, 9)
