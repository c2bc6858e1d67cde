"""TaskLibrary: tasks are kept bit for bit, swapped in place, and never touch one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import VisionTransformer, resnet18

from recast_core import RecastConfig, RecastError, RecastModel, TaskLibrary, attach, mimic
from recast_core.fitting import fit
from recast_core.layers import TargetLayer
from recast_core.library.task import file_name
from recast_core.recipe import Recipe
from tests.examples import examples


def backbone(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = VisionTransformer(16, 8, 4, 2, 16, 32, num_classes=7)
    nn.init.normal_(model.heads.head.weight)
    return model.eval()


def attached(seed: int = 0, **config: object) -> RecastModel:
    model = backbone(seed)
    return attach(model, mimic(model, RecastConfig(**config)))  # type: ignore[arg-type]


def images(rows: int = 6) -> Tensor:
    return torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def library(net: RecastModel, *names: str) -> TaskLibrary:
    tasks = TaskLibrary(net.bank)
    for index, name in enumerate(names):
        generator = torch.Generator().manual_seed(index)
        vector = net.bank.initial_vector
        head = nn.Linear(16, 3 + index)
        tasks.add(name, vector + 0.2 * torch.randn(len(vector), generator=generator), head)
    return tasks


@torch.no_grad()
def logits(net: nn.Module) -> Tensor:
    return net(images())


def test_a_library_and_a_bank_say_in_a_line_what_they_hold() -> None:
    tasks = library(attached(), "a", "b")
    sha256 = tasks.bank.sha256.hex()[:8]
    assert repr(tasks) == f"TaskLibrary(['a', 'b'], bank {sha256})"
    assert repr(tasks.bank) == (
        f"TemplateBank(8 templates in 2 groups, 32 coefficients, plain, SHA-256 {sha256})"
    )


def test_activating_and_deactivating_leaves_the_backbones_logits_bit_identical() -> None:
    net = attached(sets=2)
    before = logits(net)
    tasks = library(net, "a", "b")
    tasks.activate(net, "a")
    active = logits(net)
    assert active.shape == (6, 3)
    tasks.activate(net, "b")
    tasks.deactivate(net)
    assert torch.equal(logits(net), before)
    tasks.activate(net, "a")
    assert torch.equal(logits(net), active)


def test_learning_another_task_leaves_a_tasks_predictions_bit_identical() -> None:
    net = attached()
    tasks = library(net, "a")
    tasks.activate(net, "a")
    before = logits(net)
    # Task b starts from a's coefficients and even trains a's head in place.
    assert isinstance(net.head, nn.Linear)
    net.head.requires_grad_(True)
    with torch.no_grad():
        net.head.weight.add_(1.0)
    found = fit(net, images(40), torch.arange(40) % 2, 2, Recipe(learning_rate=0.1))
    assert not torch.equal(found.coefficients, tasks["a"].coefficients)
    tasks.add("b", found.coefficients, found.head)
    tasks.activate(net, "a")
    assert torch.equal(logits(net), before)


def test_a_library_survives_saving_and_loading_bit_for_bit(tmp_path: Path) -> None:
    net = attached()
    tasks = library(net, "flowers", "npz:../data/gtsrb.npz")
    tasks.add("named", net.bank.initial_vector, nn.Linear(16, 2, bias=False), ["yes", "no"])
    tasks.save(tmp_path)
    again = TaskLibrary.load(tmp_path, net.bank)
    assert sorted(again.list()) == sorted(tasks.list())
    assert again["named"].classes == ("yes", "no")
    for name in tasks:
        for tensor in ("coefficients", "weight", "bias"):
            assert torch.equal(getattr(tasks[name], tensor), getattr(again[name], tensor))
        tasks.activate(net, name)
        before = logits(net)
        again.activate(net, name)
        assert torch.equal(logits(net), before)
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"] * 3


def test_a_task_file_is_kilobytes(tmp_path: Path) -> None:
    net = attached()
    library(net, "a").save(tmp_path)
    assert next(tmp_path.iterdir()).stat().st_size < 2048


def test_a_task_of_another_bank_is_refused_in_one_line(tmp_path: Path) -> None:
    library(attached(0), "a").save(tmp_path)
    other = attached(1)
    with pytest.raises(RecastError, match=r"was learned with bank \w{8}") as caught:
        TaskLibrary.load(tmp_path, other.bank)
    assert "\n" not in str(caught.value)
    assert "a.safetensors" in str(caught.value)


def test_a_model_of_another_bank_is_refused() -> None:
    tasks, other = library(attached(0), "a"), attached(1)
    for call in (
        lambda: tasks.activate(other, "a"),
        lambda: tasks.deactivate(other),
        lambda: tasks.export(other, "a"),
        lambda: tasks.mixed(other, images(1), ["a"]),
    ):
        with pytest.raises(RecastError, match="attach the library's bank"):
            call()


@pytest.mark.parametrize("content", [b"", b"nonsense" * 9, safetensors.torch.save({})])
def test_a_damaged_task_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    net = attached()
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(RecastError, match=r"x\.safetensors is no task or is corrupt"):
        TaskLibrary.load(tmp_path, net.bank)


def test_a_failed_write_leaves_the_saved_task_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = attached()
    tasks = library(net, "a")
    tasks.save(tmp_path)
    before = (tmp_path / "a.safetensors").read_bytes()
    tasks.remove("a")
    tasks.add("a", net.bank.initial_vector, nn.Linear(16, 5))

    def fail(source: object, target: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("recast_core.files.os.replace", fail)
    with pytest.raises(RecastError, match="cannot write"):
        tasks.save(tmp_path)
    assert (tmp_path / "a.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_mistakes_are_refused_with_a_remedy() -> None:
    net = attached()
    tasks = library(net, "flowers")
    c, head = net.bank.initial_vector, nn.Linear(16, 2)
    with pytest.raises(RecastError, match="choose flowers"):
        tasks.activate(net, "flower")
    with pytest.raises(RecastError, match="remove"):
        tasks.add("flowers", c, head)
    with pytest.raises(RecastError, match="this bank takes"):
        tasks.add("b", c[1:], head)
    with pytest.raises(RecastError, match="NaN"):
        tasks.add("b", c * float("nan"), head)
    with pytest.raises(RecastError, match="3 class names"):
        tasks.add("b", c, head, ["x", "y", "z"])
    with pytest.raises(RecastError, match=r"nn\.Linear"):
        tasks.add("b", c, nn.Identity())  # type: ignore[arg-type]
    with pytest.raises(RecastError, match="cannot read"):
        TaskLibrary.load("/nonexistent", net.bank)
    assert tasks.list() == ["flowers"]


@pytest.mark.parametrize("config", [{"target": "attn+mlp"}, {"residual": True, "templates": 2}])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_an_exported_task_is_a_plain_model_with_the_tasks_logits(
    tmp_path: Path, config: dict[str, object], suffix: str
) -> None:
    net = attached(**config)
    tasks = library(net, "a", "b")
    tasks.activate(net, "b")
    active = logits(net)
    path = tmp_path / f"a.{suffix}"
    model = tasks.export(net, "a", path)
    assert not any(isinstance(m, TargetLayer | RecastModel) for m in model.modules())
    assert torch.equal(logits(net), active), "exporting must not change the model"
    tasks.activate(net, "a")
    torch.testing.assert_close(logits(model), logits(net), rtol=1e-5, atol=1e-5)
    plain = VisionTransformer(16, 8, 4, 2, 16, 32, num_classes=3).eval()
    if suffix == "pt":
        state = torch.load(path, weights_only=True)
    else:
        state = safetensors.torch.load_file(path)
    plain.load_state_dict(state)
    assert torch.equal(logits(plain), logits(model))


def test_a_resnet_exports_with_its_own_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = resnet18(num_classes=5).eval()
    net = attach(model, mimic(model, RecastConfig(target="conv")))
    tasks = TaskLibrary(net.bank)
    tasks.add("a", net.bank.initial_vector, nn.Linear(512, 2))
    tasks.export(net, "a", tmp_path / "a.safetensors")
    resnet18(num_classes=2).load_state_dict(safetensors.torch.load_file(tmp_path / "a.safetensors"))


def test_an_export_to_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    net = attached()
    with pytest.raises(RecastError, match="ends in"):
        library(net, "a").export(net, "a", tmp_path / "a.onnx")


class Written(TorchDispatchMode):
    """Counts the numbers that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.numbers += found.numel() if isinstance(found, Tensor) else 0
        return found


def test_swapping_tasks_writes_the_coefficients_and_the_head_and_nothing_of_the_backbone() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(32, 4, 12, 6, 384, 1536, num_classes=200)
    net = attach(model, mimic(model, RecastConfig(target="attn+mlp", groups=6)))
    tasks = TaskLibrary(net.bank)
    for name in ("a", "b"):
        tasks.add(name, net.bank.initial_vector, nn.Linear(384, 100))
    tasks.activate(net, "a")
    with Written() as written:
        tasks.activate(net, "b")
    one = net.bank.sent + 100 * (384 + 1)
    assert one <= written.numbers <= 4 * one


@examples(200)
@given(st.text(min_size=1, max_size=300))
def test_any_task_name_is_one_visible_file_in_the_folder(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    found = file_name(name)
    assert "/" not in found
    assert "\0" not in found
    assert not found.startswith(".")
    assert len(found.encode()) <= 255


@given(st.lists(st.text("abAB/.%~ é-", min_size=1, max_size=9), unique=True, min_size=2))
def test_different_task_names_have_different_files(names: list[str]) -> None:
    assert len({file_name(name) for name in names}) == len(names)
