"""Masks beside photographs are no images of their class, and are said to be left out."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from client.data import folder_task_data, load_dataset, parse_task

MASKS = ("0_mask.png", "1_seg.png", "2-Mask.png", "3_mask_1.png", "3 segmentation.png")
PICTURES = ("gas_mask.jpg", "seg.jpg", "face_masked.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / "pets" / name / f"{index}.jpg")
    return tmp_path / "pets"


def add(folder: Path, *names: str) -> None:
    for name in names:
        Image.new("L", (8, 8), 255).save(folder / name)


@pytest.mark.parametrize("of_client", [True, False])
def test_masks_beside_their_photographs_are_left_out_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture, of_client: bool
) -> None:
    add(folder / "cat", *MASKS)
    with caplog.at_level(logging.INFO, "recast.data"):
        if of_client:
            found = folder_task_data(folder.parent, "pets", 8)
            assert found is not None
            count = len(found.x_train) + len(found.x_test)
        else:
            data = load_dataset(parse_task(f"x=folder:{folder}"), 8)
            count = len(data.x_train) + len(data.x_test)
    assert count == 8
    (line,) = [record for record in caplog.records if "masks" in record.getMessage()]
    assert line.levelno == logging.WARNING
    assert "(5 skipped: 5 masks beside their photographs)" in line.getMessage()
    assert "taken for masks: cat/0_mask.png, cat/1_seg.png" in line.getMessage()


def test_what_is_called_a_mask_without_its_photograph_is_a_picture(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(folder / "cat", *PICTURES)
    add(folder / "dog", "7_mask.png")
    data = load_dataset(parse_task(f"x=folder:{folder}"), 8)
    assert len(data.x_train) + len(data.x_test) == 12
    assert "masks" not in caplog.text
