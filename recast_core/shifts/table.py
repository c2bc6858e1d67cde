"""Which shifts there are, their families and severities (no torch: the grammar reads this)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from recast_core.errors import RecastError

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "gauss": "noise",
        "shot": "noise",
        "impulse": "noise",
        "speckle": "noise",
        "noisy": "noise",
        "gblur": "blur",
        "defocus": "blur",
        "motion": "blur",
        "zoom": "blur",
        "blurred": "blur",
        "lowlight": "light",
        "bright": "light",
        "contrast": "light",
        "inverted": "light",
        "pixelate": "digital",
        "jpeg": "digital",
        "colour": "digital",
        "saturate": "digital",
        "elastic": "digital",
        "rotate": "geometry",
        "far": "geometry",
        "near": "geometry",
        "shear": "geometry",
        "rotated": "geometry",
        "flipped": "geometry",
        "fog": "weather",
        "snow": "weather",
        "rain": "weather",
    }
)
"""Family of every transform of the task grammar."""

CORRUPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "gaussian_noise": "noise",
        "shot_noise": "noise",
        "impulse_noise": "noise",
        "speckle_noise": "noise",
        "gaussian_blur": "blur",
        "defocus_blur": "blur",
        "glass_blur": "blur",
        "motion_blur": "blur",
        "zoom_blur": "blur",
        "brightness": "light",
        "contrast": "light",
        "pixelate": "digital",
        "jpeg_compression": "digital",
        "saturate": "digital",
        "elastic_transform": "digital",
        "fog": "weather",
        "frost": "weather",
        "snow": "weather",
        "spatter": "weather",
    }
)
"""Family of every corruption of CIFAR-10-C, CIFAR-100-C and ImageNet-C, by its name there."""

PLAIN = ("inverted", "rotated", "flipped", "noisy", "blurred")
"""Transforms of one strength: they take no severity."""

SHIFTS = tuple(name for name in FAMILIES if name not in PLAIN)
"""Transforms with a severity; `apply.shift` makes them."""

NEED_COLOUR = frozenset({"colour", "saturate"})
"""Shifts that would leave a grey image as it is, and are refused for one."""

SEVERITIES = range(1, 6)
DEFAULT_SEVERITY = 3
_SEVERITY = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Shift:
    """A shift and how strong it is; `str(shift)` is the grammar's text, ``fog:3``."""

    name: str
    severity: int = DEFAULT_SEVERITY

    def __post_init__(self) -> None:
        if self.name not in SHIFTS:
            raise RecastError(f"unknown shift {self.name!r}: choose from {', '.join(SHIFTS)}")
        if self.severity not in SEVERITIES:
            raise RecastError(
                f"severity {self.severity} of {self.name}: use {SEVERITIES[0]} (faint) "
                f"to {SEVERITIES[-1]} (severe)"
            )

    def __str__(self) -> str:
        """Return ``name:severity``."""
        return f"{self.name}:{self.severity}"

    @property
    def family(self) -> str:
        """The family that the shift belongs to."""
        return FAMILIES[self.name]


def families() -> tuple[str, ...]:
    """Return the families in the order of the table."""
    return tuple(dict.fromkeys(FAMILIES.values()))


def shifts_of(family: str, *, grey: bool = False) -> tuple[str, ...]:
    """Return the names of a family's shifts, in the order of the table.

    Args:
        family: one of `families()`.
        grey: leave out what needs colour images.

    Raises:
        RecastError: no such family.
    """
    if family not in families():
        raise RecastError(f"unknown family {family!r} of shifts: use {', '.join(families())}")
    return tuple(
        name for name in SHIFTS if FAMILIES[name] == family and not (grey and name in NEED_COLOUR)
    )


def family_of(transform: str) -> str | None:
    """Return the family of a transform's text: ``fog``, ``fog:3``, ``inverted``, ``shot_noise:1``.

    The corruptions of the public corrupted data sets have one too; any other name has none.
    """
    name = transform.partition(":")[0]
    return FAMILIES.get(name) or CORRUPTIONS.get(name)


def parse_shift(text: str) -> Shift:
    """Read ``NAME`` or ``NAME:SEVERITY``.

    Raises:
        RecastError: no such shift, or a severity that is no integer from 1 to 5.
    """
    name, colon, level = text.partition(":")
    return Shift(name, severity_of(level, name)) if colon else Shift(name)


def severity_of(text: str, name: str) -> int:
    """Read the severity of a shift or corruption of that name.

    Raises:
        RecastError: no whole number from 1 to 5.
    """
    if not _SEVERITY.fullmatch(text) or int(text) not in SEVERITIES:
        raise RecastError(
            f"severity {text[:20]!r} of {name[:40]}: use {SEVERITIES[0]} (faint) "
            f"to {SEVERITIES[-1]} (severe)"
        )
    return int(text)
