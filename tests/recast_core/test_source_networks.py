"""Source networks: fine-tuned from one start, resumable, and dropped when they diverge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from recast_core import RecastError
from recast_core.backbones.architectures import build, parse_architecture
from recast_core.recipe import Recipe
from recast_core.sources.fine_tune import FineTuner, Losses, rate_at
from recast_core.sources.forms import Along, Everything
from recast_core.sources.shift_bank import member_tensors
from recast_core.sources.source_networks import (
    SourceFolder,
    SourceNetwork,
    Wanted,
    fine_tune_sources,
)

CPU = torch.device("cpu")
RECIPE = Recipe(2, 16, 1e-3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return build(parse_architecture("cifar_resnet(depth=8,num_classes=4)"))[0].eval()


def images(seed: int = 0, count: int = 32) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(32) % 4


class Seen:
    """Who counts what was made and what was kept."""

    def __init__(self, stop_after: int = 1000) -> None:
        self.made: list[str] = []
        self.kept: list[str] = []
        self._stop = stop_after

    def source(self, done: int, of: int, made: SourceNetwork, kept: bool) -> None:
        (self.kept if kept else self.made).append(made.name)
        if done >= self._stop:
            raise KeyboardInterrupt


def made(
    watcher: Seen, folder: SourceFolder | None = None, rates: Recipe = RECIPE, count: int = 4
) -> list[SourceNetwork]:
    model = network()
    wanted = [Wanted(f"shift {i}", lambda i=i: images(i)) for i in range(count)]  # type: ignore[misc]
    tuner = FineTuner(model, Everything(model, "linear", CPU), CPU)
    return fine_tune_sources(tuner, wanted, LABELS, rates, member_tensors(model), watcher, folder)


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[0] == pytest.approx(0.2)
    assert rates.index(max(rates)) == 4
    assert rates[-1] < 0.001
    assert all(rates[i] >= rates[i + 1] for i in range(5, 99))
    assert rate_at(0, 1) == 1.0


def test_training_lowers_the_loss_and_leaves_model_and_classifier_alone() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    form = Everything(model, "linear", CPU)
    tuner = FineTuner(model, form, CPU)
    losses = tuner.run(images(), LABELS, Recipe(20, 16, 3e-3))
    assert losses.last < losses.first - 0.1
    assert not losses.diverged
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert not [name for name in form.tensors() if name.startswith("linear.")]


def test_every_run_starts_from_the_network() -> None:
    model = network()
    form = Everything(model, "linear", CPU)
    tuner = FineTuner(model, form, CPU)
    names = member_tensors(model)
    found = []
    for seed in (1, 2, 1):
        tuner.run(images(seed), LABELS, RECIPE, seed)
        found.append(form.differences(names))
    assert all(torch.equal(found[0][name], found[2][name]) for name in names)
    assert not torch.equal(found[0]["conv1.weight"], found[1]["conv1.weight"])
    tuner.restart()
    assert not any(bool(tensor.any()) for tensor in form.differences(names).values())


def test_coefficients_move_all_tensors_of_their_section() -> None:
    model = network()
    names = member_tensors(model)
    parameters = dict(model.named_parameters())
    stacks = {name: torch.randn(2, *parameters[name].shape) * 0.01 for name in names}
    section_of = {name: int(name.startswith("layer3")) for name in names}
    form = Along(model, stacks, section_of, CPU)
    tuner = FineTuner(model, form, CPU)
    tuner.run(images(), LABELS, Recipe(5, 16, 0.1))
    coefficients = form.coefficients.detach()
    assert coefficients.shape == (2, 2)
    assert bool(coefficients.any(1).all())
    for name, tensor in form.tensors().items():
        moved = torch.tensordot(coefficients[section_of[name]], stacks[name], 1)
        torch.testing.assert_close(tensor.detach(), parameters[name] + moved)


def test_statistics_are_those_of_the_images() -> None:
    model = network()
    tuner = FineTuner(model, Everything(model, "linear", CPU), CPU)
    shifted = 3 * images(count=64) + 2
    tuner.statistics(shifted)
    with torch.no_grad():
        seen = model.get_submodule("conv1")(shifted)
    mean = tuner.buffers["bn1.running_mean"]
    torch.testing.assert_close(mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    tuner.restart()
    assert not tuner.buffers["bn1.running_mean"].any()


def test_a_bold_rate_diverges_and_is_left_out_with_its_numbers(tmp_path: Path) -> None:
    folder = SourceFolder(tmp_path / "sources", {})
    found = made(Seen(), folder, Recipe(4, 16, 1e6), count=2)
    assert [source.differences for source in found] == [{}, {}]
    assert all(source.losses.diverged for source in found)
    again = Seen()
    made(again, SourceFolder(tmp_path / "sources", {}), Recipe(4, 16, 1e6), count=2)
    assert again.kept == ["shift 0", "shift 1"]
    assert Losses(1.0, float("nan")).diverged


def test_an_interrupted_run_goes_on_and_ends_in_the_same(tmp_path: Path) -> None:
    whole = made(Seen())
    folder = tmp_path / "bank.sources"
    with pytest.raises(KeyboardInterrupt):
        made(Seen(stop_after=2), SourceFolder(folder, {"seed": 0}))
    second = Seen()
    resumed = made(second, SourceFolder(folder, {"seed": 0}))
    assert second.kept == ["shift 0", "shift 1"]
    assert second.made == ["shift 2", "shift 3"]
    for one, other in zip(whole, resumed, strict=True):
        assert one.losses == other.losses
        for name, tensor in one.differences.items():
            assert torch.equal(tensor, other.differences[name])
    SourceFolder.clear(folder)
    assert not folder.exists()


def test_sources_of_another_plan_are_refused_and_damaged_ones_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "bank.sources"
    made(Seen(), SourceFolder(folder, {"seed": 0}), count=2)
    with pytest.raises(RecastError, match="other settings"):
        SourceFolder(folder, {"seed": 1})
    path = folder / "source-0001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    again = Seen()
    made(again, SourceFolder(folder, {"seed": 0}), count=2)
    assert again.kept == ["shift 0"]
    assert again.made == ["shift 1"]
    assert json.loads((folder / "plan.json").read_text()) == {"seed": 0}


def test_more_sources_go_on_with_those_there_and_fewer_take_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "bank.sources"
    names = [f"shift {i}" for i in range(4)]
    made(Seen(), SourceFolder(folder, {"sources": names[:2]}), count=2)
    longer = SourceFolder(folder, {"sources": names})
    second = Seen()
    whole = made(second, longer)
    assert (second.kept, second.made, longer.spare) == (names[:2], names[2:], 0)
    fewer = SourceFolder(folder, {"sources": names[:3]})
    third = Seen()
    first = made(third, fewer, count=3)
    assert (third.kept, third.made, fewer.spare) == (names[:3], [], 1)
    assert [one.losses for one in first] == [one.losses for one in whole[:3]]
    assert json.loads((folder / "plan.json").read_text()) == {"sources": names}
    with pytest.raises(RecastError, match=r"other settings or data \(sources\)"):
        SourceFolder(folder, {"sources": ["another", *names[1:]]})
    (folder / "plan.json").write_text("[")
    with pytest.raises(RecastError, match="no plan of ours"):
        SourceFolder(folder, {"sources": names})


def test_clearing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    folder = tmp_path / "bank.sources"
    made(Seen(), SourceFolder(folder, {}), count=1)
    (folder / "notes.txt").write_text("mine")
    SourceFolder.clear(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_no_images_are_refused() -> None:
    model = network()
    tuner = FineTuner(model, Everything(model, "linear", CPU), CPU)
    with pytest.raises(RecastError, match="no images"):
        tuner.run(images()[:0], LABELS[:0], RECIPE)
