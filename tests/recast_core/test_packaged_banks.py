"""What the package ships: a deployed classifier of digits, and a small shift bank of it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import torch

from client.data import load_dataset, parse_task
from recast_core import RecastError, attach
from recast_core.backbones import load_backbone
from recast_core.banks import load_bank
from recast_core.sources.shift_bank import member_tensors


def test_the_deployed_classifier_tells_digits_apart() -> None:
    loaded = load_backbone("digits_resnet20")
    assert loaded.classes == tuple("0123456789")
    data = load_dataset(parse_task("digits"), loaded.preprocess.size)
    with torch.no_grad():
        found = loaded.model(loaded.preprocess(data.x_test)).argmax(1)
    assert float((found == torch.from_numpy(data.y_test)).double().mean()) > 0.98


def test_its_bank_is_small_and_starts_at_it() -> None:
    bank = load_bank("digits_resnet20")
    assert len(bank.to_bytes()) <= 400_000
    assert bank.sent == 48
    assert bank.meta["holdout"] == "noise blur weather"
    assert bank.meta["sources"] == "144"
    loaded = load_backbone("digits_resnet20")
    assert tuple(group.name for group in bank.groups) == member_tensors(loaded.model)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before = loaded.model(images)
        assert torch.allclose(attach(loaded.model, bank)(images), before, rtol=1e-4, atol=1e-5)


def test_its_file_is_the_bank_byte_for_byte() -> None:
    bank = load_bank("digits_resnet20")
    with resources.as_file(resources.files("recast_core.banks")) as folder:
        path = Path(folder) / "digits_resnet20.safetensors"
        assert path.read_bytes() == bank.to_bytes()
        assert load_bank(str(path)).sha256 == bank.sha256


def test_a_path_that_is_no_bank_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecastError, match="cannot read the bank"):
        load_bank(str(tmp_path / "none.safetensors"))
