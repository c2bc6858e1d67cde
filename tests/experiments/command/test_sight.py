"""What becomes of an image before a model sees it is recorded with the model, and done again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

from client.data import load_dataset
from experiments.command import cli
from experiments.command.sight import Sight
from recast_core.backbones import load_backbone
from recast_core.backbones.files import read_state
from recast_core.errors import RecastError

if TYPE_CHECKING:
    from conftest import Simulated

SIZE = 8


def ask(capfd: pytest.CaptureFixture[str], *args: object, code: int = 0) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recast", *map(str, args), "--json", "-"])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    told = capfd.readouterr()
    assert caught.value.code == code, told.err
    return told.err if code else json.loads(told.out)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of images of 33 x 40 pixels that differ in their fine detail alone."""
    rng = np.random.default_rng(0)
    for name, period in (("fine", 2), ("rough", 3)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        stripes = 255 * (np.arange(40) % period == 0)
        for index in range(10):
            noise = rng.integers(-40, 40, (33, 40, 3))
            image = np.clip(np.roll(stripes, index)[None, :, None] + noise, 0, 255)
            path = tmp_path / "photos" / name / f"{index}.png"
            Image.fromarray(image.astype(np.uint8)).save(path)
    load_dataset.cache_clear()
    return tmp_path / "photos"


def as_written(path: Path, about: dict[str, str]) -> torch.Tensor:
    """What the metadata of an exported model say becomes of an image, by Pillow and torch alone."""
    size = int(about["size"])
    with Image.open(path) as image:
        picture = image.convert("RGB")
    assert (about["crop"], about["resize_smaller"]) == ("centre", "bilinear")
    if about["resize_larger"] == "bicubic":
        picture = ImageOps.fit(picture, (size, size), method=Image.Resampling.BICUBIC)
        x = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255
    else:
        x = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255
        shorter = min(x.shape[-2:])
        shape = [round(side * size / shorter) for side in x.shape[-2:]]
        x = F.interpolate(x, shape, mode="bilinear", antialias=True)
        top, left = ((side - size) // 2 for side in x.shape[-2:])
        x = x[..., top : top + size, left : left + size]
    mean, std = (
        torch.tensor([float(v) for v in about[k].split(",")]).view(1, 3, 1, 1)
        for k in ("mean", "std")
    )
    return (x - mean) / std


@pytest.mark.parametrize("arrays", [False, True], ids=["files", "arrays"])
def test_an_exported_model_says_how_images_are_resized_and_predict_does_it(
    simulated: Simulated, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    arrays: bool,
) -> None:  # fmt: skip
    data = f"folder:{photos}"
    paths = sorted(photos.glob("*/*.png"))
    if arrays:
        images = np.stack([np.asarray(Image.open(path)) for path in paths])
        labels = np.array([path.parent.name == "rough" for path in paths]).astype(int)
        flag = np.arange(len(paths)) % 5 == 0
        names = ["fine", "rough"]
        np.savez(tmp_path / "p.npz", x=images, y=labels, is_test=flag, classes=names)
        data = f"npz:{tmp_path / 'p.npz'}"
    model = tmp_path / "m.safetensors"
    ask(
        capfd, "tasks", "export", "b", "-o", model, "--data", data, "--run", simulated.folder
    )  # fmt: skip
    _, about = read_state(model)
    assert about["resize_larger"] == ("bilinear" if arrays else "bicubic")
    loaded = load_backbone(f"file:{model}").model
    found = ask(capfd, "predict", "--model", model, *paths)["images"]
    ours = ask(capfd, "predict", "--task", "b", "--data", data, "--run", simulated.folder, *paths)
    for path, one, other in zip(paths, found, ours["images"], strict=True):
        with torch.no_grad():
            scores = loaded(as_written(path, about))[0]
        assert one["score"] == pytest.approx(float(scores.max()), abs=2e-3)
        assert one["class"] == ["fine", "rough"][int(scores.argmax())]
        assert (other["class"], other["score"]) == (
            one["class"], pytest.approx(one["score"], abs=2e-3),
        )  # fmt: skip


def test_greys_of_twelve_bits_are_those_of_the_task_when_predicted(
    simulated: Simulated, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, top in (("dark", 400), ("light", 4095)):
        (tmp_path / "x" / name).mkdir(parents=True)
        for index in range(6):
            deep = np.full((SIZE, SIZE), top - index, np.uint16)
            Image.fromarray(deep).save(tmp_path / "x" / name / f"{index}.png")
    load_dataset.cache_clear()
    model = tmp_path / "m.safetensors"
    data = f"folder:{tmp_path / 'x'}"
    report = ask(
        capfd, "tasks", "export", "b", "-o", model, "--data", data, "--run", simulated.folder
    )
    assert report["test_accuracy"] == 1.0
    assert read_state(model)[1]["grey_bits"] == "12"
    files = [tmp_path / "x" / "dark" / "0.png", tmp_path / "x" / "light" / "0.png"]
    found = ask(capfd, "predict", "--model", model, *files)["images"]
    # Alone, the dark image would be stretched to as bright as the light one.
    assert [row["class"] for row in found] == ["dark", "light"]
    Image.fromarray(np.full((SIZE, SIZE), 60000, np.uint16)).save(tmp_path / "deep.png")
    said = ask(capfd, "predict", "--model", model, tmp_path / "deep.png", code=2)
    assert "60000" in said
    assert "12 bits" in said


def test_what_is_recorded_is_read_back_and_what_is_unknown_refused(tmp_path: Path) -> None:
    for sight in (Sight(), Sight("bilinear"), Sight("bicubic", 12)):
        assert Sight.read(sight.write(), tmp_path) == sight
    assert Sight.read({}, tmp_path) == Sight()  # a file of before it was recorded
    for odd in ({"resize_larger": "lanczos"}, {"crop": "none"}, {"grey_bits": "many"}):
        with pytest.raises(RecastError, match="resizes images otherwise"):
            Sight.read(Sight().write() | odd, tmp_path)


def test_an_old_export_is_still_predicted_with(
    simulated: Simulated, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "m.safetensors"
    data = f"folder:{photos}"
    ask(capfd, "tasks", "export", "b", "-o", model, "--data", data, "--run", simulated.folder)
    state, about = read_state(model)
    for key in Sight().write():
        del about[key]
    old = tmp_path / "old.safetensors"
    old.write_bytes(safetensors.torch.save(state, about))
    paths = sorted(photos.glob("*/*.png"))[:4]
    assert ask(capfd, "predict", "--model", old, *paths) == ask(
        capfd, "predict", "--model", model, *paths
    )


def test_images_that_cannot_be_read_are_all_named(
    simulated: Simulated, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("no image")
    good = next(photos.glob("*/*.png"))
    paths = [tmp_path / "text.png", good, tmp_path / "absent.png"]
    said = ask(capfd, "predict", "--task", "b", "--run", simulated.folder, *paths, code=2)
    assert "2 of 3 images" in said
    assert "text.png" in said
    assert "absent.png" in said
    assert said.count("\n") == 1
