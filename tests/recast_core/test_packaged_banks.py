"""What the package ships: a deployed classifier of digits, and a small shift bank of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from client.data import load_dataset, parse_task
from recast_core import RecastError
from recast_core.backbones import load_backbone
from recast_core.banks import load_bank


def test_the_deployed_classifier_tells_digits_apart() -> None:
    loaded = load_backbone("digits_resnet20")
    assert loaded.classes == tuple("0123456789")
    data = load_dataset(parse_task("digits"), loaded.preprocess.size)
    with torch.no_grad():
        found = loaded.model(loaded.preprocess(data.x_test)).argmax(1)
    assert float((found == torch.from_numpy(data.y_test)).double().mean()) > 0.98


def test_a_path_that_is_no_bank_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecastError, match="cannot read the bank"):
        load_bank(str(tmp_path / "none.safetensors"))
