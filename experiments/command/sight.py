"""What becomes of an image file before a model sees it, as an exported model records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from client.data.arrays import Images
from client.data.images import read_image, to_bytes
from recast_core.errors import RecastError

Resampling = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Sight:
    """How images were made ready that a head was fitted on; others must be made ready likewise.

    The shorter side becomes the backbone's size, and the centre is cut out. Smaller images are
    enlarged bilinearly, always.

    Attributes:
        larger: how larger images shrink: files bicubically as they are read, the arrays of npz
            files and digits bilinearly (antialiased).
        grey_bits: of which greys of more than eight bits keep the upper eight; 8 where there were
            none, and a file's own brightest pixel decides.
    """

    larger: Resampling = "bicubic"
    grey_bits: int = 8

    @classmethod
    def of(cls, data: str, grey_bits: int = 8) -> Self:
        """Of the canonical text of a task's data, such as ``npz:PATH``."""
        arrays = data == "digits" or data.startswith("npz:")
        return cls("bilinear" if arrays else "bicubic", grey_bits)

    def write(self) -> dict[str, str]:
        """As an exported model's metadata."""
        return {
            "crop": "centre",
            "resize_larger": self.larger,
            "resize_smaller": "bilinear",
            "grey_bits": str(self.grey_bits),
        }

    @classmethod
    def read(cls, about: Mapping[str, str], path: Path) -> Self:
        """From metadata; a file of before these were recorded had files read bicubically.

        Raises:
            RecastError: images made ready in a way that is unknown here.
        """
        found = {key: about.get(key, value) for key, value in cls().write().items()}
        larger, bits = found["resize_larger"], found["grey_bits"]
        known = found == cls("bilinear", 8).write() | {"resize_larger": larger, "grey_bits": bits}
        if larger not in ("bicubic", "bilinear") or not bits.isdecimal() or not known:
            raise RecastError(
                f"{path} was made by a version that resizes images otherwise: upgrade recast"
            )
        return cls(larger, int(bits))  # type: ignore[arg-type]  # checked above

    def see(self, path: Path, size: int) -> Images:
        """Read an image file: uint8 ``[H, W]`` or ``[H, W, 3]``.

        Raises:
            ValueError: it cannot be read; says why.
        """
        image = read_image(path, size if self.larger == "bicubic" else None)
        bits = self.grey_bits if self.grey_bits > 8 else None
        return to_bytes([[image]], bits)[0][0][0]
