"""What people hand to ``fit`` gives the same coefficients, or one line that says why not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from recast_core import RecastConfig, RecastError, RecastModel, attach, fit, mimic
from recast_core.backbones.cifar_resnet import CifarResNet

CLASSES = 3
IMAGES = torch.randn(12, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % CLASSES


def attached() -> RecastModel:
    torch.manual_seed(0)
    model = CifarResNet(8, 4).eval()
    return attach(model, mimic(model, RecastConfig(("layer?.0.conv*",))))


def trained(images: object, labels: object, **options: object) -> Tensor:
    found = fit(attached(), images, labels, CLASSES, epochs=1, **options)  # type: ignore[arg-type]
    return found.coefficients


class Rows(torch.utils.data.Dataset[object]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> object:
        if index >= 12:
            raise IndexError
        return IMAGES[index], int(LABELS[index])


class Broken(Rows):
    def __getitem__(self, index: int) -> object:
        if index == 5:
            raise OSError("truncated")
        return super().__getitem__(index)


class Photographs(Rows):
    def __getitem__(self, index: int) -> object:
        return Image.new("RGB", (12, 12)), 0


def mappings(image: str, label: str) -> list[dict[str, Tensor]]:
    return [{image: x, label: y} for x, y in zip(IMAGES.split(5), LABELS.split(5), strict=True)]


def one_hot() -> Tensor:
    return torch.nn.functional.one_hot(LABELS, CLASSES)


INPUTS: dict[str, Callable[[], tuple[object, object]]] = {
    "arrays": lambda: (IMAGES.numpy(), LABELS.numpy()),
    "double": lambda: (IMAGES.double(), LABELS),
    "double array": lambda: (IMAGES.double().numpy(), LABELS.numpy()),
    "big-endian": lambda: (IMAGES.numpy().astype(">f4"), LABELS.numpy().astype(">i8")),
    "flipped array": lambda: (IMAGES.flip(0).numpy()[::-1], LABELS),
    "lists": lambda: (list(IMAGES), LABELS.tolist()),
    "tuple of arrays": lambda: (tuple(IMAGES.numpy()), LABELS),
    "int32": lambda: (IMAGES, LABELS.int()),
    "uint8": lambda: (IMAGES, LABELS.to(torch.uint8)),
    "uint8 array": lambda: (IMAGES, LABELS.numpy().astype(np.uint8)),
    "float": lambda: (IMAGES, LABELS.float()),
    "half": lambda: (IMAGES, LABELS.half()),
    "column": lambda: (IMAGES, LABELS[:, None]),
    "column of uint8, as MedMNIST": lambda: (IMAGES, LABELS.numpy()[:, None].astype(np.uint8)),
    "one-hot": lambda: (IMAGES, one_hot()),
    "one-hot floats, as Keras": lambda: (IMAGES, one_hot().numpy().astype(np.float32)),
    "requires grad": lambda: (IMAGES.clone().requires_grad_(), LABELS),
    "loader": lambda: (DataLoader(TensorDataset(IMAGES, LABELS), 5), None),
    "loader of columns": lambda: (DataLoader(TensorDataset(IMAGES, LABELS[:, None]), 5), None),
    "dataset": lambda: (TensorDataset(IMAGES, LABELS), None),
    "dataset without iteration": lambda: (Rows(), None),
    "hugging face": lambda: (mappings("pixel_values", "labels"), None),
    "mappings": lambda: (mappings("image", "label"), None),
    "generator": lambda: (zip(IMAGES.split(5), LABELS.split(5), strict=True), None),
}


@pytest.mark.parametrize("case", INPUTS)
def test_a_conversion_gives_the_same_coefficients(case: str) -> None:
    wanted = trained(IMAGES, LABELS)
    assert torch.equal(trained(*INPUTS[case]()), wanted)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_it_trains_whatever_is_set_around_it(around: Callable[[], torch.no_grad]) -> None:
    wanted = trained(IMAGES, LABELS)
    net = attached()
    with around():
        found = fit(net, IMAGES.clone(), LABELS.clone(), CLASSES, epochs=1)
    assert torch.equal(found.coefficients, wanted)


REFUSED: dict[str, tuple[Callable[[], tuple[object, object]], str]] = {
    "short": (lambda: (IMAGES, LABELS[:-1]), "12 images and 11 labels"),
    "uint8 images": (lambda: (IMAGES.to(torch.uint8), LABELS), "preprocess"),
    "channels last": (lambda: (IMAGES.permute(0, 2, 3, 1), LABELS), "does not take images"),
    "one image": (lambda: (IMAGES[0], LABELS), "3 images and 12 labels"),
    "grey": (lambda: (IMAGES[:, :1], LABELS), "does not take images of shape"),
    "whole numbers": (lambda: (IMAGES.long(), LABELS), "does not take images"),
    "nan": (lambda: (IMAGES / 0, LABELS), "NaN"),
    "parts of a class": (lambda: (IMAGES, LABELS + 0.5), "not whole"),
    "soft": (lambda: (IMAGES, one_hot() * 0.9 + 0.03), "not whole"),
    "infinite": (lambda: (IMAGES, LABELS / 0), "not whole"),
    "two-hot": (lambda: (IMAGES, one_hot() + one_hot().roll(1, 1)), "one-hot rows"),
    "another count": (lambda: (IMAGES, torch.eye(4)[LABELS]), "one-hot rows"),
    "three axes": (lambda: (IMAGES, LABELS[:, None, None]), "one class id for each"),
    "one number": (lambda: (IMAGES, 3), "one class id for each"),
    "names": (lambda: (IMAGES, ["a", "b", "c"] * 4), "whole numbers from 0"),
    "array of names": (lambda: (IMAGES, np.array(["a", "b", "c"] * 4)), "whole numbers from 0"),
    "from one": (lambda: (IMAGES, LABELS + 1), "from 1 to 3"),
    "no labels": (lambda: (IMAGES, None), "no labels"),
    "loader and labels": (lambda: (DataLoader(IMAGES), LABELS), "its own labels"),  # type: ignore[arg-type]
    "loader of images": (lambda: (DataLoader(IMAGES, 4), None), "pairs"),  # type: ignore[arg-type]
    "loader of triples": (
        lambda: (DataLoader(TensorDataset(IMAGES, LABELS, LABELS)), None), "list of 3",
    ),
    "other names": (lambda: (mappings("a", "b"), None), "a, b"),
    "sparse": (lambda: (IMAGES.to_sparse(), LABELS), "sparse tensor"),
    "meta": (lambda: (IMAGES.to("meta"), LABELS), "meta tensor"),
    "dead camera": (lambda: (torch.zeros_like(IMAGES), LABELS), "12 images are the same"),
    "broken item": (lambda: (Broken(), None), r"item 5 \(OSError: truncated\)"),
    "loader of photographs": (lambda: (DataLoader(Photographs()), None), "item 0 .*tensors"),
    "empty loader": (lambda: ([], None), "no images"),
    "text": (lambda: ("images", LABELS), "cannot read images"),
    "uneven": (lambda: ([(torch.zeros(1, 3, 8, 8), [0]), (IMAGES, LABELS)], None), "shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_a_guess_is_one_line(case: str) -> None:
    make, says = REFUSED[case]
    with pytest.raises(RecastError, match=says) as caught:
        trained(*make())
    assert "\n" not in str(caught.value)


def test_a_merged_model_is_used_up() -> None:
    net = attached()
    net.merge()
    for call in (lambda: fit(net, IMAGES, LABELS, CLASSES), lambda: net(IMAGES), net.merge):
        with pytest.raises(RecastError, match="merged already"):
            call()


def test_a_model_attached_in_inference_mode_is_one_line() -> None:
    with torch.inference_mode():
        net = attached()
    with pytest.raises(RecastError, match="inference_mode"):
        fit(net, IMAGES, LABELS, CLASSES)


def test_an_option_that_does_not_exist_is_refused_and_the_recipes_are_options() -> None:
    with pytest.raises(RecastError, match="no option 'epoch'"):
        trained(IMAGES, LABELS, epoch=3)
    net = attached()
    fit(net, IMAGES, LABELS, CLASSES, epochs=0)
    assert torch.equal(net.coefficients.sent(), net.bank.initial_vector)


def test_a_loader_says_its_classes_and_progress_is_shown_where_it_is_wanted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    x, y = torch.randn(24, 3, 32, 32), torch.arange(24) % 3
    data = TensorDataset(x, y)
    with pytest.raises(RecastError, match="the number of classes is not known: give it"):
        fit(attached(), DataLoader(data, 8))
    data.classes = ["a", "b", "c"]  # type: ignore[attr-defined]
    found = fit(attached(), DataLoader(data, 8), epochs=2, batch=8, progress=True)
    assert found.head.out_features == 3
    said = capsys.readouterr().err
    assert said.rstrip().splitlines()[-1].startswith("fit: 6/6 steps, ")
    again = fit(attached(), data, classes=3, epochs=2, batch=8)
    assert torch.equal(again.coefficients, found.coefficients)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch": 2}, "batch is 2: a step teaches nothing"),
        ({"batch": 8.0}, "batch is 8.0: give a whole number"),
        ({"epochs": 1.5}, "epochs is 1.5: give a whole number"),
        ({"epochs": -1}, "epochs is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": "1e-2"}, "learning_rate is '1e-2'"),
    ],
)
def test_options_that_train_nothing_are_refused_as_the_recipes_are(
    options: dict[str, object], says: str
) -> None:
    with pytest.raises(RecastError, match=says):
        fit(attached(), IMAGES, LABELS, CLASSES, **options)  # type: ignore[arg-type]


def test_what_is_no_count_of_classes_and_what_is_not_attached_are_one_line() -> None:
    for classes in (3.0, 0, True, "3"):
        with pytest.raises(RecastError, match=r"classes is .*: give a whole number of 1 or more"):
            fit(attached(), IMAGES, LABELS, classes)  # type: ignore[arg-type]
    with pytest.raises(RecastError, match="a Linear has no coefficients to fit"):
        fit(torch.nn.Linear(3, 3), IMAGES, LABELS, CLASSES)  # type: ignore[arg-type]


def test_unsigned_labels_are_ids() -> None:
    right = trained(IMAGES, LABELS)
    for kind in (torch.uint16, torch.uint32, torch.uint64):
        assert torch.equal(trained(IMAGES, LABELS.to(kind)), right)


def test_a_half_of_images_that_are_all_alike_stops_nothing() -> None:
    images = IMAGES.clone()
    images[:8] = 0
    for seed in range(3):
        found = fit(attached(), images, LABELS, CLASSES, epochs=2, batch=4, seed=seed)
        assert bool(torch.isfinite(found.coefficients).all())


def test_features_that_overflow_and_a_seed_that_is_none_are_one_line() -> None:
    with pytest.raises(RecastError, match="lower the learning rate"):
        trained(IMAGES, LABELS, learning_rate=1e9)
    with pytest.raises(RecastError, match="63 bits"):
        trained(IMAGES, LABELS, seed=1 << 70)


def test_images_that_teach_nothing_are_said_to(caplog: pytest.LogCaptureFixture) -> None:
    fit(attached(), IMAGES[:2], LABELS[:2], CLASSES)
    assert "no batch of these 2 images teaches anything" in caplog.text
