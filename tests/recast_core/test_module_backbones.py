"""A factory of the user's own: what its model takes is said or read, what is wrong is one line."""

from __future__ import annotations

import itertools
import sys
import threading
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recast_core import RecastConfig, RecastError, attach, fit, mimic
from recast_core.backbones import IMAGENET_MEAN, Preprocess, load_backbone
from recast_core.folded import split_model

_number = itertools.count()


class Small(nn.Module):
    """Takes any size that its last layer fits: ``size`` pixels where given."""

    def __init__(self, channels: int = 3, size: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.out = nn.Linear(8 * size * size if size else 8, 3)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.out(x.flatten(1) if self.size else x.mean((2, 3)))


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], str]:
    def make(factory: Callable[[], object]) -> str:
        name = f"own_networks_{next(_number)}"
        module = types.ModuleType(name)
        module.make = factory  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
        return f"module:{name}:make"

    return make


TAKEN: dict[str, tuple[Callable[[], nn.Module], str, Preprocess]] = {
    "size": (lambda: Small(size=28), "@size=28", Preprocess(28)),
    "everything": (
        lambda: Small(1), "@size=28,channels=1,mean=0.1307,std=0.3081",
        Preprocess(28, (0.1307,), (0.3081,)),
    ),
    "three means": (
        Small, "@size=32,mean=0.5/0.4/0.3,std=0.25", Preprocess(32, (0.5, 0.4, 0.3), (0.25,) * 3),
    ),
    "one channel is seen": (lambda: Small(1), "@size=16", Preprocess(16, (0.449,), (0.226,))),
    "nothing": (Small, "", Preprocess(224)),
    "the only size that fits": (lambda: Small(size=28), "", Preprocess(28)),
    "image_size": (lambda: with_attributes(image_size=48), "", Preprocess(48)),
    "timm": (
        lambda: with_attributes(
            default_cfg={"input_size": (3, 40, 40), "mean": (0.5,) * 3, "std": (0.2,) * 3}
        ),
        "", Preprocess(40, (0.5,) * 3, (0.2,) * 3),
    ),
    "hugging face": (
        lambda: with_attributes(config=types.SimpleNamespace(image_size=24, num_channels=3)),
        "", Preprocess(24),
    ),
    "within DataParallel": (
        lambda: nn.DataParallel(with_attributes(image_size=48)), "", Preprocess(48),
    ),
    "half a number": (Small, "@size=8,mean=.5,std=.25", Preprocess(8, (0.5,) * 3, (0.25,) * 3)),
    "options win": (
        lambda: with_attributes(image_size=48), "@size=20,std=0.5,mean=0",
        Preprocess(20, (0.0,) * 3, (0.5,) * 3),
    ),
}  # fmt: skip


def with_attributes(**attributes: object) -> nn.Module:
    model = Small()
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


@pytest.mark.parametrize("case", TAKEN)
def test_images_are_made_ready_as_is_said_or_seen(
    case: str, spec: Callable[[Callable[[], object]], str]
) -> None:
    make, options, wanted = TAKEN[case]
    loaded = load_backbone(spec(make) + options)
    assert loaded.preprocess == wanted
    assert loaded.head in ("out", "module.out")
    for shape in ((2, 30, 30), (2, 30, 30, 3)):
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        ready = loaded.preprocess(images)
        assert ready.shape == (2, wanted.channels, wanted.size, wanted.size)
        assert loaded.model(ready).shape == (2, 3)


def test_colours_become_grey_as_pillow_makes_them() -> None:
    image = pytest.importorskip("PIL.Image")
    colours = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    grey = np.stack([np.asarray(image.fromarray(each).convert("L")) for each in colours])
    found = Preprocess(8, (0.0,), (1.0,))(colours) * 255
    assert (found[:, 0] - torch.from_numpy(grey)).abs().max() <= 1
    assert torch.equal(Preprocess(8, (0.0,), (1.0,))(grey)[:, 0], torch.from_numpy(grey) / 255)


def test_a_network_of_one_channel_attaches_divides_and_trains(
    spec: Callable[[Callable[[], object]], str],
) -> None:
    loaded = load_backbone(spec(lambda: Small(1)) + "@size=12")
    net = attach(loaded.model, mimic(loaded.model, RecastConfig(("blocks.*",))), loaded.head)
    images = loaded.preprocess(np.random.default_rng(0).integers(0, 256, (6, 12, 12), np.uint8))
    split = split_model(net, 12, loaded.preprocess.channels)
    assert split.prefix is not None
    torch.testing.assert_close(split.suffix(split.prefix(images)), net.features(images))
    found = fit(net, images, torch.arange(6) % 2, 2)
    assert bool((found.coefficients != net.bank.initial_vector).any())


class Returns(Small):
    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self._change = change

    def forward(self, x: Tensor) -> object:  # type: ignore[override]
        return self._change(super().forward(x))


def fails() -> nn.Module:
    raise ValueError("no such\nthing")


def exits() -> nn.Module:
    raise SystemExit(3)


def filled(value: float) -> nn.Module:
    model = Small()
    nn.init.constant_(model.out.weight, value)
    return model


def test_a_network_that_is_there_already_is_taken_as_it_is_each_time(
    spec: Callable[[Callable[[], object]], str],
) -> None:
    own = Small()
    name = spec(own) + "@size=8"
    first = load_backbone(name).model
    assert first is not own
    attach(first, mimic(first, RecastConfig(("blocks.*",))))
    images = torch.ones(1, 3, 8, 8)
    assert torch.equal(load_backbone(name).model(images), own(images))


def test_what_a_factory_prints_stays_off_standard_output(
    spec: Callable[[Callable[[], object]], str], capsys: pytest.CaptureFixture[str]
) -> None:
    def chatty() -> nn.Module:
        print("loading")
        return Small()

    load_backbone(spec(chatty) + "@size=8")
    assert capsys.readouterr() == ("", "loading\n")


def test_a_file_in_the_place_of_a_module_is_told_how_to_be_one() -> None:
    with pytest.raises(RecastError, match=r"write module:nets:make and set PYTHONPATH to /my"):
        load_backbone("module:/my/nets.py:make")


async def coroutine() -> nn.Module:
    return Small()


def says_nothing() -> nn.Module:
    raise AssertionError


REFUSED: dict[str, tuple[Callable[[], object], str, str]] = {
    "raises": (fails, "", "raises ValueError: no such thing"),
    "exits": (exits, "", "raises SystemExit"),
    "wants arguments": (lambda width: Small(), "", "raises TypeError"),  # type: ignore[misc]
    "scripted": (lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 2))), "", "a scripted model"),
    "coroutine": (coroutine, "", "returned coroutine"),
    "holds a lock": (
        lambda: with_attributes(lock=threading.Lock()), "", "cannot be copied .*keep locks",
    ),
    "says nothing": (says_nothing, "", "raises AssertionError: let it"),
    "no module": (lambda: "resnet", "", "returned str"),
    "a class": (Small.__mro__[1], "", "has no classifier|fails"),
    "an odd size": (lambda: Small(size=27), "", "fails on images of 3 x 224 x 224.*@size=32"),
    "wrong size": (lambda: Small(size=28), "@size=32", "fails on images of 3 x 32 x 32"),
    "wrong channels": (lambda: Small(1), "@channels=3,size=8", "fails on images of 3 x 8 x 8"),
    "four channels": (lambda: Small(4), "@size=8", "4 channels"),
    "several outputs": (
        lambda: Returns(lambda x: (x, x)), "@size=8", "tuple of 2 tensors",
    ),
    "no output": (lambda: Returns(lambda x: None), "@size=8", "NoneType of 0"),
    "a map": (lambda: Returns(lambda x: x[..., None, None]), "@size=8", "logits .N, classes."),
    "softmax": (lambda: Returns(lambda x: x.softmax(1)), "@size=8", "has no classifier.*softmax"),
    "unknown option": (Small, "@sizes=8", "did you mean size"),
    "no value": (Small, "@size", "cannot read 'size'"),
    "no number": (Small, "@size=big", "cannot read 'size=big'"),
    "no whole number": (Small, "@size=8.5", "give a whole number"),
    "zero": (Small, "@size=0", "give a whole number"),
    "two means": (Small, "@mean=0.5/0.5,size=8", "2 numbers for|takes 2 channels"),
    "mean of three for grey": (Small, "@channels=1,mean=0.5/0.5/0.5", "3 numbers for 1"),
    "mean of bytes": (Small, "@mean=127,std=50,size=8", "above 1: .* divide it by 255"),
    "said twice": (Small, "@size=8,size=16", "says size twice"),
    "too large": (Small, "@size=99999", "at most 4096 pixels"),
    "not finite": (lambda: filled(float("nan")), "@size=8", "out.weight .* holds NaN"),
    "zero std": (Small, "@std=0,size=8", "give numbers above 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_one_line(case: str, spec: Callable[[Callable[[], object]], str]) -> None:
    make, options, says = REFUSED[case]
    with pytest.raises(RecastError, match=says) as caught:
        load_backbone(spec(make) + options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [lambda x: {"logits": x, "loss": None}, lambda x: (x,)])
def test_an_object_that_holds_logits_is_taken(
    change: Callable[[Tensor], object], spec: Callable[[Callable[[], object]], str]
) -> None:
    loaded = load_backbone(spec(lambda: Returns(change)) + "@size=8")
    assert loaded.head == "out"


@pytest.mark.parametrize(
    "source", ["raise OSError('gone')", "def make(:", "import sys; sys.exit(2)"]
)
def test_a_module_that_fails_is_one_line(
    source: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"broken_networks_{next(_number)}"
    (tmp_path / f"{name}.py").write_text(source)  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RecastError, match=f"importing '{name}' fails") as caught:
        load_backbone(f"module:{name}:make")
    assert "\n" not in str(caught.value)


def test_imagenets_normalisation_is_noted_where_nothing_is_said(
    spec: Callable[[Callable[[], object]], str],
) -> None:
    loaded = load_backbone(spec(Small) + "@size=8")
    assert loaded.preprocess.mean == IMAGENET_MEAN
    assert "ImageNet's mean" in loaded.notes[0]
    assert not load_backbone(spec(Small) + "@size=8,mean=0.5,std=0.5").notes


def test_a_size_that_nobody_said_is_noted(
    spec: Callable[[Callable[[], object]], str],
) -> None:
    said = "@mean=0.5,std=0.5"
    assert "scaled to 224 x 224" in load_backbone(spec(Small) + said).notes[0]
    assert not load_backbone(spec(lambda: Small(size=28)) + said).notes


def test_random_weights_of_a_factory_are_the_same_everywhere(
    spec: Callable[[Callable[[], object]], str],
) -> None:
    state = torch.random.get_rng_state()
    one, other = (load_backbone(spec(Small) + "@size=8").model for _ in range(2))
    assert torch.equal(one.out.weight, other.out.weight)
    assert torch.equal(torch.random.get_rng_state(), state)
