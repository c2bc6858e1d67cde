"""The paper's test runs end to end on stand-ins, and its two archives become task folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import VisionTransformer

from client.data import load_dataset, parse_task
from experiments.studies import paper, paper_data
from experiments.studies.paper import BY_NAME, Recipe, learn, prepared
from recast_core.backbones import load_backbone
from recast_core.errors import RecastError


@pytest.fixture
def vit(tmp_path: Path) -> str:
    torch.manual_seed(0)
    model = VisionTransformer(8, 4, 12, 2, 16, 32, num_classes=4)
    save_file(model.state_dict(), tmp_path / "vit.safetensors", {"num_heads": "2"})
    return f"file:{tmp_path / 'vit.safetensors'}"


def test_every_variant_learns_a_task_and_the_table_counts_the_head(
    vit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "paper.jsonl"
    arguments = ["--vit", vit, "--resnet", "glyph_resnet20", "--tasks", "digits[:10%]@0-2",
                 "--quick", "--rows", str(rows)]  # fmt: skip
    paper.main(arguments)
    found = {row["variant"]: row for row in map(json.loads, rows.read_text().splitlines())}
    assert list(found) == list(BY_NAME)
    assert [found[f"recast-{name}"]["trained"] for name in ("att", "mlp", "att+mlp")] == [
        48,
        96,
        144,
    ]
    assert found["recast-att"]["sent"] == 24
    assert found["linear head, vit"]["trained"] == 0
    assert found["recast-att + MeLo"]["trained"] == 48 + found["MeLo"]["trained"]
    assert found["MeLo"]["head"] == 10 * 16 + 10
    shown = capsys.readouterr().out
    assert "| recast-mlp + AdaptFormer |" in shown
    made = rows.read_text()
    paper.main(arguments)
    assert rows.read_text() == made


def test_the_recipe_trains_and_repeats_itself() -> None:
    loaded = load_backbone("glyph_resnet20")
    data = load_dataset(parse_task("digits[:20%]@0-2"), loaded.preprocess.size)
    recipe = Recipe(epochs=3, batch=16, rate=5e-3, step=2)

    def accuracy() -> float:
        again = load_backbone("glyph_resnet20")
        model = prepared(BY_NAME["recast-resnet"], again, torch.device("cpu"))
        return float(learn(model, again, data, recipe, 42)["accuracy"])

    assert accuracy() == accuracy() > 0.6


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = ord(path.stem)  # images of one part that are all alike are refused
    Image.fromarray(np.full((8, 8, 3), grey, np.uint8)).save(path)


def test_scenes_and_birds_are_split_as_their_authors_did(tmp_path: Path) -> None:
    for kind in ("bar", "attic"):
        for name in "ab":
            picture(tmp_path / "Images" / kind / f"{name}.jpg")
    (tmp_path / "TrainImages.txt").write_text("bar/a.jpg\nattic/b.jpg\n")
    (tmp_path / "TestImages.txt").write_text("bar/b.jpg\nattic/a.jpg\n")
    birds = tmp_path / "CUB_200_2011"
    for kind in ("001.Albatross", "002.Auklet"):
        for name in "ab":
            picture(birds / "images" / kind / f"{name}.jpg")
    (birds / "images.txt").write_text(
        "1 001.Albatross/a.jpg\n2 001.Albatross/b.jpg\n3 002.Auklet/a.jpg\n4 002.Auklet/b.jpg\n"
    )
    (birds / "train_test_split.txt").write_text("1 1\n2 0\n3 0\n4 1\n")
    for _ in range(2):  # a second time changes nothing
        paper_data.main(["scenes", "cub", "--root", str(tmp_path)])
    for name, classes in (("scenes", ("attic", "bar")), ("cub", ("001.Albatross", "002.Auklet"))):
        data = load_dataset(parse_task(f"folder:{tmp_path / name}"), 8)
        assert data.classes == classes
        assert (len(data.y_train), len(data.y_test)) == (2, 2)
    assert (tmp_path / "cub" / "test" / "002.Auklet" / "a.jpg").is_file()


def test_an_archive_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecastError, match="--download"):
        paper_data.main(["cub", "--root", str(tmp_path)])
    (tmp_path / "TrainImages.txt").write_text("bar/a.jpg\n")
    (tmp_path / "TestImages.txt").write_text("")
    with pytest.raises(RecastError, match="whole archive"):
        paper_data.main(["scenes", "--root", str(tmp_path)])
