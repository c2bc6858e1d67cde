"""Image files as arrays: decoded, upright, of one size and eight bits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from client.data.arrays import Images

if TYPE_CHECKING:
    from PIL import Image

Decoded = Images | npt.NDArray[np.uint16]
DEPTHS = (8, 10, 12, 14, 16)
_ORIENTATION = 0x0112
# What phones write, also under the name of a JPEG.
_HEIF = (b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1")
_INSTEAD = (
    (b"version https://git-lfs", "a Git LFS pointer: run git lfs pull"),
    (b"<svg", "an SVG drawing: save it as PNG"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
)


def read_image(file: Path, size: int | None) -> Decoded:
    """Read an image file as its camera held it: uint8 [H, W] or [H, W, 3], or uint16 [H, W].

    Of EXIF only the orientation is read: no other tag, however odd, keeps an image out.

    Args:
        file: what Pillow reads; of an animation the first frame.
        size: see `decoded`.

    Raises:
        ValueError: it cannot be read, or its numbers are no greys of 16 bits; the text says why.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # Not by its name: Pillow maps a raw TIFF into memory then, and garbles a turned one.
        with (
            file.open("rb") as content,
            warnings.catch_warnings(action="ignore"),  # of odd tags, by lines with Pillow's paths
            Image.open(content) as image,
        ):
            layout = str(getattr(image, "tile", ""))
            _load(image)
            found = decoded(upright(image), size)
    except UnidentifiedImageError as error:
        raise ValueError(_instead(file)) from error
    except Image.DecompressionBombError as error:
        raise ValueError("more pixels than Pillow opens: make it smaller") from error
    # A decoder of a broken file raises whatever it comes upon; Pillow documents no common class.
    except Exception as error:
        raise ValueError(" ".join(str(error).split())[:80] or type(error).__name__) from error
    if found.ndim == 3 and ";16" in layout and int(found.max(initial=0)) < 16:
        # Pillow keeps the upper eight bits of a colour of sixteen: nothing is left of twelve.
        raise ValueError("16-bit colours of fewer bits: store 8 bits a colour")
    return found


def _instead(file: Path) -> str:
    """What a file is that is no image of any kind that Pillow reads."""
    with file.open("rb") as content:
        head = content.read(64)
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
        return "a HEIC photo: save it as JPEG"
    found = (what for start, what in _INSTEAD if head.lstrip().lower().startswith(start))
    return next(found, "no image")


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; an orientation that is none turns nothing."""
    from PIL import Image

    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:  # a damaged EXIF block raises whatever the parser comes upon
        return image
    method = turns.get(found) if isinstance(found, int) else None
    return image if method is None else image.transpose(method)


def decoded(image: Image.Image, size: int | None) -> Decoded:
    """A decoded image as an array, never larger than it is worth.

    An image whose shorter side exceeds `size` is scaled to it (bicubic) and centre-cropped at once:
    a folder of photographs would not fit into memory otherwise. `None` keeps every size. Grey stays
    grey, transparency is dropped.

    Returns:
        uint8 [H, W] or [H, W, 3]; uint16 [H, W] of a grey of more than eight bits, whose range
        only all images of a set show (`to_bytes`).

    Raises:
        ValueError: numbers whose range is unknown: floating point, negative, above 16 bits; or a
            transparency that varies over one colour, of which nothing would be left.
    """
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point pixels")
    deep = image.mode == "I" or image.mode.startswith("I;16")
    if deep:
        values = np.asarray(image).astype(np.int64)
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < 1 << 16:
            raise ValueError(f"greys from {values.min()} to {values.max()}: store 0 to 65535")
        # Pillow resizes greys of 16 bits as floating point only.
        image = Image.fromarray(values.astype(np.float32))
    else:
        hidden = "A" in image.getbands() and _is_all_transparency(image)
        image = image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
        if hidden:
            raise ValueError("a picture in its transparency alone: put it on a background")
    if size is not None and min(image.size) > size:
        image = _fit(image, size)
    if deep:
        rounded: Decoded = np.rint(np.asarray(image)).clip(0, 65535).astype(np.uint16)
        return rounded
    return np.asarray(image, dtype=np.uint8)


def to_bytes(
    groups: Sequence[Sequence[Decoded]], bits: int | None = None
) -> tuple[list[list[Images]], int]:
    """Scale greys of more than eight bits to eight, all images of a set alike.

    A file of 16 bits rarely says how many of them count, and a camera's 12 would come out as 0 to
    15. The brightest pixel of the whole set decides: the smallest of `DEPTHS` that holds it.

    Args:
        groups: arrays of `decoded`.
        bits: the depth, where it is known.

    Returns:
        The groups as uint8, and the depth; 8 where nothing was scaled.

    Raises:
        ValueError: an image is brighter than `bits` allow.
    """
    deep = [image for group in groups for image in group if image.dtype == np.uint16]
    if not deep:
        return [[image.astype(np.uint8, copy=False) for image in group] for group in groups], 8
    brightest = max(int(image.max(initial=0)) for image in deep)
    if bits is None:
        bits = next(depth for depth in DEPTHS if brightest < 1 << depth)
    if brightest >= 1 << bits:
        raise ValueError(f"a grey of {brightest}, the task's have {bits} bits")
    shift = bits - 8
    scaled = [
        [
            (image >> shift if image.dtype == np.uint16 else image).astype(np.uint8, copy=False)
            for image in group
        ]
        for group in groups
    ]
    return scaled, bits


def stack(groups: Sequence[Sequence[Images]], size: int) -> list[Images]:
    """Stack groups of images, all groups to the same shape.

    Images of one common height and width stay as they are; otherwise each is scaled so that its
    shorter side is `size`, and centre-cropped to size x size. One RGB image makes all RGB.

    Args:
        groups: images uint8 [H, W] or [H, W, 3], at least one in all.
        size: side in pixels.

    Returns:
        One uint8 array [N, H, W] or [N, H, W, 3] per group; N may be 0.
    """
    from PIL import Image

    flat = [image for group in groups for image in group]
    uniform = len({image.shape[:2] for image in flat}) == 1
    height, width = flat[0].shape[:2] if uniform else (size, size)
    shape = (height, width, 3) if any(image.ndim == 3 for image in flat) else (height, width)
    stacked = []
    for group in groups:
        out = np.empty((len(group), *shape), dtype=np.uint8)
        for row, image in zip(out, group, strict=True):
            fitted = image if uniform else np.asarray(_fit(Image.fromarray(image), size))
            row[...] = fitted[..., None] if fitted.ndim < row.ndim else fitted
        stacked.append(out)
    return stacked


def _is_all_transparency(image: Image.Image) -> bool:
    """Whether an image of one colour differs from place to place in how it is seen through."""
    extrema = [band.getextrema() for band in image.split()]
    constant = [low == high for low, high in extrema]
    place = image.getbands().index("A")
    return not constant.pop(place) and all(constant)


def _load(image: Image.Image) -> None:
    """Decode. Pillow's TIFF reader then turns the image itself, and stumbles over odd tags."""
    try:
        image.load()
    except Exception:
        if image.format != "TIFF" or not _is_loaded(image):
            raise


def _is_loaded(image: Image.Image) -> bool:
    try:
        image.getpixel((image.width - 1, image.height - 1))
    except Exception:
        return False
    return True


def _fit(image: Image.Image, size: int) -> Image.Image:
    from PIL import Image, ImageOps

    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
