"""Shifts of images: the same bits however they are asked for, and as strong as they say."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from recast_core.errors import RecastError
from recast_core.shifts import apply
from recast_core.shifts.apply import shift
from recast_core.shifts.draws import field, normal, seeds_of, words
from recast_core.shifts.table import (
    CORRUPTIONS,
    FAMILIES,
    NEED_COLOUR,
    PLAIN,
    SHIFTS,
    Shift,
    families,
    family_of,
    parse_shift,
    shifts_of,
)

_SIZES = [(3, 32, 32), (1, 8, 8), (3, 20, 33), (3, 2, 5)]


def _images(count: int, *shape: int) -> Tensor:
    """Smooth images with some detail, which every shift changes."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, shape[0], 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear")
    fine = torch.rand(count, *shape, generator=generator)
    return ((0.8 * smooth + 0.2 * fine) * 255).to(torch.uint8)


def _seeds(count: int) -> Tensor:
    return seeds_of(torch.arange(count), 0, 0, 0)


def _allowed(name: str, shape: tuple[int, ...]) -> bool:
    return shape[0] == 3 or name not in NEED_COLOUR


@pytest.mark.parametrize("shape", _SIZES)
@pytest.mark.parametrize("name", SHIFTS)
def test_image_alone_in_a_batch_and_in_chunks_has_the_same_bits(
    name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not _allowed(name, shape):
        pytest.skip("colour only")
    images, seeds = _images(7, *shape), _seeds(7)
    before = images.clone()
    for severity in (1, 5):
        whole = shift(images, name, severity, seeds)
        assert whole.shape == images.shape
        assert whole.dtype == torch.uint8
        picked = torch.tensor([5, 0, 3])
        assert torch.equal(shift(images[picked], name, severity, seeds[picked]), whole[picked])
        assert torch.equal(shift(images[4:5], name, severity, seeds[4:5]), whole[4:5])
        with monkeypatch.context() as patch:
            patch.setattr(apply, "_CHUNK", {"cpu": 2 * images[0].numel()})
            assert torch.equal(shift(images, name, severity, seeds), whole)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", SHIFTS)
def test_every_severity_changes_images_and_more_so_than_the_one_before(name: str) -> None:
    images, seeds = _images(64, 3, 32, 32), _seeds(64)
    changes = [
        float((shift(images, name, level, seeds).float() - images.float()).abs().mean())
        for level in range(1, 6)
    ]
    assert changes[0] > 1.0
    assert all(more > less for less, more in pairwise(changes)), changes


@pytest.mark.parametrize("name", [name for name in SHIFTS if name not in NEED_COLOUR])
def test_eight_pixels_are_changed_too(name: str) -> None:
    images, seeds = _images(64, 1, 8, 8), _seeds(64)
    for level in range(1, 6):
        assert not torch.equal(shift(images, name, level, seeds), images), level


@pytest.mark.parametrize("name", SHIFTS)
def test_an_empty_batch_stays_empty(name: str) -> None:
    assert shift(_images(2, 3, 8, 8)[:0], name, 3, _seeds(0)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    "name", ["gauss", "shot", "impulse", "speckle", "motion", "elastic", "rotate", "fog", "snow"]
)
def test_what_is_random_follows_the_seed(name: str) -> None:
    image = _images(1, 3, 32, 32)
    one, two = (shift(image, name, 3, seeds_of(torch.tensor([k]), 0)) for k in (0, 1))
    assert not torch.equal(one, two)


def test_a_second_process_with_more_threads_makes_the_same_bits() -> None:
    code = """
import hashlib, torch
from recast_core.shifts.apply import shift
from recast_core.shifts.draws import seeds_of
from recast_core.shifts.table import SHIFTS
torch.set_num_threads({threads})
x = (torch.arange(5 * 3 * 32 * 32) * 37 % 251).to(torch.uint8).reshape(5, 3, 32, 32)
h = hashlib.sha256()
for name in SHIFTS:
    h.update(shift(x, name, 3, seeds_of(torch.arange(5), 0)).numpy().tobytes())
print(h.hexdigest())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code.format(threads=threads)],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for threads in (1, 3)
    }  # fmt: skip
    assert len(found) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", SHIFTS)
def test_a_gpu_makes_the_same_bits(name: str) -> None:
    for shape in _SIZES:
        if _allowed(name, shape):
            images, seeds = _images(300, *shape), _seeds(300)
            for severity in (1, 3, 5):
                here = shift(images, name, severity, seeds)
                there = shift(images.cuda(), name, severity, seeds.cuda())
                assert there.is_cuda
                assert torch.equal(there.cpu(), here)


def test_draws_are_those_of_before() -> None:
    """A change of a random number would change every shifted task that somebody has trained."""
    seeds = _seeds(3)
    made = [words(seeds, 1, 2, 3), normal(seeds, 0, 9), field(seeds, 2, 4, 9, 7)]
    text = b"".join(part.to(torch.int64).numpy().tobytes() for part in made)
    assert hashlib.sha256(text).hexdigest()[:16] == "3ebace0ab8af6dcb"


def test_normal_and_uniform_draws_have_their_moments() -> None:
    z = normal(_seeds(50), 0, 2000).double() / 1024
    assert abs(float(z.mean())) < 0.02
    assert abs(float(z.std()) - 1) < 0.02
    columns = words(_seeds(50), 0, 2000).double() / 2**32
    assert abs(float(columns.mean()) - 0.5) < 0.01
    apart = torch.corrcoef(columns)
    assert float((apart - torch.eye(50)).abs().max()) < 0.12
    neighbours = torch.stack([columns[:, 1:].flatten(), columns[:, :-1].flatten()])
    assert float(torch.corrcoef(neighbours)[0, 1].abs()) < 0.02


def test_strengths_are_those_of_the_table() -> None:
    grey = torch.full((64, 3, 32, 32), 128, dtype=torch.uint8)
    seeds = _seeds(64)
    noise = shift(grey, "gauss", 3, seeds).float()
    assert abs(float(noise.std()) / 255 - 0.15) < 0.003
    spots = shift(grey, "impulse", 3, seeds)
    assert abs(float(((spots == 0) | (spots == 255)).float().mean()) - 0.16) < 0.01
    photons = shift(grey, "shot", 3, seeds).float()
    assert abs(float(photons.mean()) - 128) < 1.5
    assert abs(float(photons.std()) / 255 - (128 / 255 / 12) ** 0.5) < 0.01
    for still in ("gblur", "defocus", "motion", "zoom", "pixelate", "elastic", "rotate", "far"):
        assert torch.equal(shift(grey, still, 3, seeds), grey), still
    assert torch.equal(shift(grey, "contrast", 5, seeds), grey)


def test_geometry_moves_what_it_should() -> None:
    point = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    point[0, 0, 16, 24] = 255
    turned = shift(point, "rotate", 3, _seeds(1))[0, 0]
    row, column = divmod(int(turned.argmax()), 33)
    distance = ((row - 16) ** 2 + (column - 16) ** 2) ** 0.5
    assert abs(distance - 8) < 1
    assert 4 <= abs(row - 16) <= 6  # 25 to 45 degrees
    closer = shift(point, "near", 3, _seeds(1))[0, 0]
    assert divmod(int(closer.argmax()), 33) == (16, 28)


def test_unknown_shift_severity_and_grey_colours_are_refused_in_one_line() -> None:
    images = _images(2, 3, 8, 8)
    for name, severity, images_, said in (
        ("smog", 3, images, "choose from"),
        ("fog", 0, images, "1 (faint) to 5 (severe)"),
        ("fog", 6, images, "1 (faint) to 5 (severe)"),
        ("colour", 3, images[:, :1], "changes nothing in grey images"),
    ):
        with pytest.raises(RecastError, match=r"\A[^\n]*\Z") as error:
            shift(images_, name, severity, _seeds(2))
        assert said in str(error.value)


def test_table_has_each_name_once_with_a_family_and_a_function() -> None:
    assert set(apply._MADE) == set(SHIFTS)
    assert set(SHIFTS) | set(PLAIN) == set(FAMILIES)
    assert families() == ("noise", "blur", "light", "digital", "geometry", "weather")
    assert sorted(name for family in families() for name in shifts_of(family)) == sorted(SHIFTS)
    assert "colour" not in shifts_of("digital", grey=True)
    assert family_of("fog:4") == "weather"
    assert family_of("noisy") == "noise"
    assert family_of("frost:2") == "weather"
    assert family_of("glass_blur") == "blur"
    assert family_of("else") is None
    assert set(CORRUPTIONS.values()) <= set(families())
    with pytest.raises(RecastError, match="use noise, blur"):
        shifts_of("fuzz")


def test_text_of_a_shift_reads_back() -> None:
    assert parse_shift("fog") == Shift("fog", 3)
    assert str(parse_shift("fog:5")) == "fog:5"
    assert parse_shift("snow:1").family == "weather"
    for text in ("fog:", "fog:x", "fog:2.5", "fog:-1", "fog:9"):
        with pytest.raises(RecastError, match="severity"):
            parse_shift(text)
