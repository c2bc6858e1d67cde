"""A library as a folder and on a hub: a stand-in of the hub on the disk, nothing is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import create_autospec

import huggingface_hub
import pytest
import torch
from torch import nn

from recast_core import RecastConfig, RecastError, TaskLibrary, attach, mimic
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.library import About
from recast_core.model import RecastModel

ABOUT = About(
    "glyph_resnet20", "apache-2.0", {"flowers": {"accuracy": 0.912345}, "signs": {"update": 44}}
)


def attached() -> RecastModel:
    torch.manual_seed(0)
    model = CifarResNet(8, 4)
    return attach(model, mimic(model, RecastConfig(target="layer?.0.conv*")))


@pytest.fixture
def net() -> RecastModel:
    return attached()


@pytest.fixture
def tasks(net: RecastModel) -> TaskLibrary:
    library = TaskLibrary(net.bank)
    for name, classes in (("flowers", ["rose", "tu|lip", "lily"]), ("signs", None)):
        vector = net.coefficients.sent() + torch.rand(net.bank.sent)
        library.add(name, vector, nn.Linear(64, 3), classes)
    return library


def same(one: TaskLibrary, other: TaskLibrary) -> None:
    assert one.list() == other.list()
    assert one.bank.sha256 == other.bank.sha256
    for name in one:
        assert torch.equal(one[name].coefficients, other[name].coefficients)
        assert torch.equal(one[name].weight, other[name].weight)
        assert one[name].classes == other[name].classes


def test_a_folder_says_all_that_another_machine_needs(tasks: TaskLibrary, tmp_path: Path) -> None:
    tasks.save_pretrained(tmp_path / "x", ABOUT)
    again = TaskLibrary.from_pretrained(tmp_path / "x")
    same(again, tasks)
    assert again.about == ABOUT
    net = attached()
    again.activate(net, "flowers")
    assert torch.equal(net.head.weight, tasks["flowers"].weight)


def test_the_card_names_bank_backbone_classes_licence_and_figures(
    tasks: TaskLibrary, tmp_path: Path
) -> None:
    tasks.save_pretrained(tmp_path, ABOUT)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: recast\n")
    assert 'license: "apache-2.0"\n' in card
    for text in (tasks.bank.sha256.hex(), "`glyph_resnet20`", "rose, tu\\|lip, lily", "0.9123"):
        assert text in card
    row = next(line for line in card.splitlines() if line.startswith("| flowers |"))
    assert row.split(" | ")[1:3] == ["3", str(tasks.bank.sent)]


def test_what_does_not_fit_is_refused(tasks: TaskLibrary, tmp_path: Path) -> None:
    with pytest.raises(RecastError, match="no task 'flower' in the library of 2: choose flowers"):
        tasks.save_pretrained(tmp_path, About(figures={"flower": {}}))
    tasks.save_pretrained(tmp_path, ABOUT)
    model = CifarResNet(8, 4)
    other = TaskLibrary(mimic(model, RecastConfig(target="layer?.0.conv*")))
    with pytest.raises(RecastError, match="holds the tasks of another bank"):
        other.save_pretrained(tmp_path)
    about = tmp_path / "recast.json"
    about.write_text(about.read_text().replace("library/1", "library/2"))
    with pytest.raises(RecastError, match=r"has format 'recast\.library/2': upgrade"):
        TaskLibrary.from_pretrained(tmp_path)
    about.write_text("{")
    with pytest.raises(RecastError, match="give the folder that save_pretrained"):
        TaskLibrary.from_pretrained(tmp_path)
    with pytest.raises(RecastError, match="no folder /no/such"):
        TaskLibrary.from_pretrained("/no/such")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders in the place of repositories, behind huggingface_hub's own signatures."""
    root = tmp_path / "hub"
    api = create_autospec(huggingface_hub.HfApi, instance=True)

    def create(repo_id: str, *, private: bool, exist_ok: bool) -> None:
        (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        assert private

    def upload(*, repo_id: str, folder_path: str, **_: object) -> str:
        shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)
        return f"https://hub.invalid/{repo_id}"

    def snapshot(repo_id: str, **_: object) -> str:
        if not (root / repo_id).is_dir():
            raise OSError(f"404: {repo_id}\nnot found")
        return str(root / repo_id)

    api.create_repo.side_effect, api.upload_folder.side_effect = create, upload
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    spec = create_autospec(huggingface_hub.snapshot_download, side_effect=snapshot)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", spec)
    return root


def test_a_library_goes_to_the_hub_and_comes_back(tasks: TaskLibrary, hub: Path) -> None:
    assert tasks.push_to_hub("me/flowers", ABOUT) == "https://hub.invalid/me/flowers"
    again = TaskLibrary.from_pretrained("me/flowers")
    same(again, tasks)
    assert again.about == ABOUT
    assert (hub / "me" / "flowers" / "README.md").exists()
    with pytest.raises(RecastError, match="cannot fetch me/other from the hub") as caught:
        TaskLibrary.from_pretrained("me/other")
    assert "\n" not in str(caught.value)


def test_without_huggingface_hub_its_extra_is_named(
    tasks: TaskLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(RecastError, match="pip install 'recast-fl\\[hub\\]'"):
        tasks.push_to_hub("me/flowers")
    with pytest.raises(RecastError, match="pip install 'recast-fl\\[hub\\]'"):
        TaskLibrary.from_pretrained("me/flowers")


def test_without_the_adapter_it_is_the_backbone_within_the_block_alone(
    net: RecastModel, tasks: TaskLibrary
) -> None:
    images, backbone = torch.randn(2, 3, 32, 32), attached()
    torch.manual_seed(0)
    plain = CifarResNet(8, 4).eval()
    tasks.activate(net, "flowers")
    with torch.no_grad():
        adapted = net(images)
        with net.disable_adapter() as off:
            assert off is net
            torch.testing.assert_close(net(images), plain(images), rtol=1e-4, atol=1e-5)
        assert torch.equal(net(images), adapted)
    backbone.merge()
    with pytest.raises(RecastError, match="merged already"), backbone.disable_adapter():
        pass
