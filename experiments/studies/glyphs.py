"""Letters of many scripts, rendered from the fonts that matplotlib ships; no digit among them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

MASTER = 32
SIZE = 16
# DejaVu and STIX text faces; the others hold symbols, or letters at code points of their own.
FACES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
HELD_OUT = ("DejaVuSerif-Italic", "STIXGeneralBol", "DejaVuSansMono-Oblique")
MIN_FACES = 8


@dataclass(frozen=True, eq=False)
class Glyphs:
    """Rendered characters.

    Attributes:
        images: uint8 ``[N, 32, 32]``, bright ink on a dark ground, ink centred.
        labels: int64 ``[N]``.
        held_out: bool ``[N]``, faces kept from training.
        characters: one for each class.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    characters: str


def render_glyphs() -> Glyphs:
    """Every letter that at least ``MIN_FACES`` faces have, once for each face."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    maps = {face: set(FT2Font(str(folder / f"{face}.ttf")).get_charmap()) for face in FACES}
    points = sorted(set().union(*maps.values()))
    kept = [
        point
        for point in points
        if _is_glyph(chr(point)) and sum(point in found for found in maps.values()) >= MIN_FACES
    ]
    images, labels, held_out, characters, seen = [], [], [], "", set()
    for point in kept:
        drawn = {
            face: _draw(folder / f"{face}.ttf", chr(point)) for face in FACES if point in maps[face]
        }
        # Latin, Greek and Cyrillic share shapes: one class for what the first face draws alike.
        shape = next(iter(drawn.values())).tobytes()
        if shape in seen or any(image.max() == 0 for image in drawn.values()):
            continue
        seen.add(shape)
        for face, image in drawn.items():
            images.append(image)
            labels.append(len(characters))
            held_out.append(face in HELD_OUT)
        characters += chr(point)
    return Glyphs(np.stack(images), np.array(labels), np.array(held_out), characters)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random views of master images: float32 ``[N, 32, 32]`` in 0..1 -> ``[N, 1, 16, 16]``.

    Small rotations, scales, shears and shifts; thicker or thinner strokes; blur by a detour over
    8 x 8 pixels; contrast and noise. No inversion and no quarter turns.
    """
    count, device = len(images), images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(count, *shape, generator=generator, device=device)
        return low + (high - low) * drawn

    x = images.unsqueeze(1)
    thick = F.max_pool2d(x, 3, 1, 1)
    thin = -F.max_pool2d(-x, 3, 1, 1)
    weight = uniform(-0.6, 1.0, 1, 1, 1)
    x = torch.where(weight > 0, x + weight * (thick - x), x + weight.abs() * (thin - x))
    angle, shear = uniform(-0.25, 0.25), uniform(-0.25, 0.25)
    wide, high = uniform(0.9, 1.5), uniform(0.9, 1.35)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 1] = wide * angle.cos(), shear - angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = angle.sin(), high * angle.cos()
    theta[:, :, 2] = uniform(-0.15, 0.15, 2)
    grid = F.affine_grid(theta, [count, 1, SIZE, SIZE], align_corners=False)
    x = F.grid_sample(x, grid, align_corners=False)
    coarse = F.interpolate(F.avg_pool2d(x, 2), SIZE, mode="bilinear", align_corners=False)
    x = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, coarse, x)
    peak = x.amax((2, 3), keepdim=True).clamp_min(0.2)
    x = x / peak * uniform(0.6, 1.0, 1, 1, 1)
    noise = torch.randn(x.shape, generator=generator, device=device)
    return (x + 0.05 * uniform(0, 1, 1, 1, 1) * noise).clamp(0, 1)


def plain(images: Tensor) -> Tensor:
    """The same without chance: ``[N, 32, 32] -> [N, 1, 16, 16]``."""
    return F.avg_pool2d(images.unsqueeze(1), 2)


def _is_glyph(character: str) -> bool:
    if unicodedata.numeric(character, None) is not None:
        return False
    # Letters with marks would differ from their bases by two or three pixels.
    return unicodedata.category(character) in ("Lu", "Ll", "Lo") and (
        not unicodedata.decomposition(character)
    )


def _draw(font: Path, character: str) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("L", (160, 160))
    face = ImageFont.truetype(str(font), 72)
    ImageDraw.Draw(canvas).text((80, 80), character, fill=255, font=face, anchor="mm")
    box = canvas.getbbox()
    if box is None:
        return np.zeros((MASTER, MASTER), np.uint8)
    ink = canvas.crop(box)
    side = round(max(ink.size) * 1.15)
    square = Image.new("L", (side, side))
    square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    return np.asarray(square.resize((MASTER, MASTER), Image.Resampling.BOX))
