"""Networks from files that compute nothing, or say of themselves what cannot be."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.backbones.load import load_backbone
from recast_core.errors import RecastError

State = dict[str, Tensor]


def _saved(path: Path, state: State | None = None, metadata: dict[str, str] | None = None) -> str:
    save_file(_state() if state is None else state, str(path / "net.safetensors"), metadata)
    return f"file:{path / 'net.safetensors'}"


def _state() -> State:
    torch.manual_seed(0)
    model = CifarResNet(8, 4)
    model(torch.randn(4, 3, 32, 32))  # in training mode: its BatchNorms have seen images
    return {key: tensor.clone().contiguous() for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"size": "0"}, "images of 0 pixels"),
        ({"size": "100000"}, "images of 100000 pixels"),
        ({"mean": "123.7,116.3,103.5", "std": "58.4,57.1,57.4"}, "divide those of 0 to 255"),
        ({"mean": "0.5,0.5,0.5", "std": "0,0,0"}, "cannot have"),
        ({"mean": "nan,0,0", "std": "1,1,1"}, "cannot have"),
        ({"mean": "0.5,0.5,0.5"}, "cannot read size, mean or std"),
        ({"mean": "0.5", "std": "0.5"}, "fails on images of 1 x 32 x 32"),
        ({"class_names": json.dumps(["a", "b"])}, "names 2 classes for 4 outputs"),
        ({"class_names": json.dumps(["a", "b", "c", ""])}, "a class without a name"),
        ({"class_names": json.dumps(["a\x1b[31m", "b", "c", "d"])}, "a class named"),
    ],
)
def test_what_a_file_says_of_its_images_and_classes_must_be_possible(
    metadata: dict[str, str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(RecastError, match=says) as caught:
        load_backbone(_saved(tmp_path, None, metadata))
    assert "\n" not in str(caught.value)


def _levels(state: State) -> State:
    return state | {"conv1.weight": (100 * state["conv1.weight"]).long()}


def _no_variance(state: State) -> State:
    return state | {"linear.weight": torch.full_like(state["linear.weight"], 1e38)}


@pytest.mark.parametrize(
    ("spoil", "says"), [(_levels, "means nothing without a scale"), (_no_variance, "NaN or inf")]
)
def test_weights_that_nothing_can_be_computed_with_are_refused(
    spoil: Callable[[State], State], says: str, tmp_path: Path
) -> None:
    with pytest.raises(RecastError, match=says):
        load_backbone(_saved(tmp_path, spoil(_state())))


def test_a_network_that_answers_the_same_for_any_image_is_noted(tmp_path: Path) -> None:
    state = _state()
    assert not load_backbone(_saved(tmp_path, state)).notes[1:]  # but that a small stem is assumed
    zeros = state | {"linear.weight": torch.zeros_like(state["linear.weight"])}
    assert "the same for any image" in load_backbone(_saved(tmp_path, zeros)).notes[-1]


def test_statistics_that_were_lost_are_noted(tmp_path: Path) -> None:
    def says(state: State) -> bool:
        notes = load_backbone(_saved(tmp_path, state)).notes
        return any("statistics of no image" in note for note in notes)

    fresh = {key: tensor.clone() for key, tensor in CifarResNet(8, 4).state_dict().items()}
    assert not says(_state())
    assert not says(fresh), "a network at random, which somebody may want"
    assert says(fresh | {"bn1.bias": torch.ones(16)})


def test_a_bank_is_no_backbone_and_called_a_bank(tmp_path: Path) -> None:
    spec = _saved(tmp_path, None, {"recast.bank": "{}"})
    with pytest.raises(RecastError, match="is a template bank"):
        load_backbone(spec)


def test_an_interrupt_while_a_network_is_read_is_raised_when_that_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def interrupted(state: State, path: Path) -> State:
        os.kill(os.getpid(), signal.SIGINT)
        read.extend(state)
        return state

    monkeypatch.setattr("recast_core.backbones.files.unprefixed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_backbone(_saved(tmp_path))
    assert read
