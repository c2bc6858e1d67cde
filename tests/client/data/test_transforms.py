"""Image transforms."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from client.data.torchvision_data import DATASETS
from client.data.transforms import TRANSFORMS, apply_transforms
from recast_core import task_spec

_SHAPES = [(7, 8, 8), (7, 8, 8, 3), (0, 8, 8, 3)]


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
@pytest.mark.parametrize("shape", _SHAPES)
def test_shape_dtype_and_input_are_kept_and_the_result_repeats(
    name: str, shape: tuple[int, ...]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before, indices = images.copy(), np.arange(len(images))
    one, two = (
        apply_transforms(images, [name], indices=indices, part="train", seed=3) for _ in range(2)
    )
    assert one.shape == shape
    assert one.dtype == np.uint8
    assert np.array_equal(one, two)
    assert np.array_equal(images, before)
    assert not len(images) or not np.array_equal(one, images)


@pytest.mark.parametrize(("name", "times"), [("inverted", 2), ("flipped", 2), ("rotated", 4)])
def test_transform_returns_to_the_start(name: str, times: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)
    out = apply_transforms(images, [name] * times, indices=np.arange(4), part="test", seed=0)
    assert np.array_equal(out, images)


def test_noise_hangs_on_the_image_alone_and_differs_between_parts_and_seeds() -> None:
    images = np.full((6, 8, 8), 128, np.uint8)
    every = np.arange(6)
    whole = apply_transforms(images, ["noisy"], indices=every, part="train", seed=0)
    some = apply_transforms(images[[4, 1]], ["noisy"], indices=every[[4, 1]], part="train", seed=0)
    assert np.array_equal(some, whole[[4, 1]])
    assert not np.array_equal(whole[0], whole[1])
    for part, seed in (("test", 0), ("train", 1)):
        other = apply_transforms(images, ["noisy"], indices=every, part=part, seed=seed)  # type: ignore[arg-type]
        assert not np.array_equal(other, whole)


def test_blur_keeps_the_mean_and_lowers_the_variance() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    out = apply_transforms(images, ["blurred"], indices=np.arange(3), part="train", seed=0)
    assert abs(out.mean() - images.mean()) < 1.5
    assert out.std() < images.std() / 2


@pytest.mark.parametrize("name", ["gauss:3", "elastic:2", "fog:5", "jpeg:1", "motion:3"])
@pytest.mark.parametrize("shape", [(9, 16, 16), (9, 16, 16, 3)])
def test_shift_hangs_on_the_image_alone(name: str, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    every = np.arange(9) + 40
    whole = apply_transforms(images, [name], indices=every, part="train", seed=0)
    assert whole.shape == shape
    assert whole.dtype == np.uint8
    for pick in ([7], [8, 0, 3]):
        some = apply_transforms(images[pick], [name], indices=every[pick], part="train", seed=0)
        assert np.array_equal(some, whole[pick])
    if name[:4] != "jpeg":
        other = apply_transforms(images, [name], indices=every, part="test", seed=0)
        assert not np.array_equal(other, whole)


def test_the_same_noise_twice_is_other_noise_the_second_time() -> None:
    images = np.full((1, 16, 16), 128, np.uint8)
    once, twice = (
        apply_transforms(images, ["gauss:2"] * n, indices=np.arange(1), part="train", seed=0)
        for n in (1, 2)
    )
    one, two = once.astype(int) - 128, twice.astype(int) - once
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.3


def test_plain_transforms_keep_their_bytes() -> None:
    images = np.arange(2 * 8 * 8 * 3, dtype=np.int64).reshape(2, 8, 8, 3)
    images = (images * 37 % 251).astype(np.uint8)
    out = apply_transforms(images, list(TRANSFORMS), indices=np.arange(2), part="test", seed=5)
    assert hashlib.sha256(out.tobytes()).hexdigest()[:16] == "11156d56945fb56c"


def test_every_transform_of_the_grammar_has_a_function_and_every_function_a_name():
    assert set(TRANSFORMS) == set(task_spec.TRANSFORMS)


def test_every_data_set_of_the_grammar_has_its_parts_and_all_parts_a_name():
    assert set(DATASETS) == set(task_spec.DATASETS)
