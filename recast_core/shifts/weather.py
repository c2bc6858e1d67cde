"""Weather before the lens. Each: int32 [N, C, H, W], seeds [N], severity -> the same.

There is no frost: it takes photographs of frost, which are not shipped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recast_core.shifts.draws import below, field, words
from recast_core.shifts.sampling import along, rounded, scale_of

_FOG = (0.25, 0.40, 0.55, 0.68, 0.80)
_SNOW = ((0.010, 0.10), (0.020, 0.15), (0.035, 0.20), (0.055, 0.30), (0.080, 0.40))
"""Share of pixels where a flake starts, and how white the air is."""
_RAIN = ((0.004, 0.35), (0.008, 0.45), (0.015, 0.55), (0.025, 0.65), (0.040, 0.75))
"""Share of pixels where a streak starts, and how much it hides."""
_FLAKE_PATH, _STREAK_PATH = 0.6, 4.0
_STREAK_GREY, _RAIN_LIGHT = 210, 0.85


def fog(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Lay smooth clouds of two sizes over the image."""
    height, width = x.shape[-2:]
    clouds = 3 * field(seeds, 0, 4, height, width) + 2 * field(seeds, 1, 8, height, width)
    haze = 102 + (clouds * 153 + 637) // (5 * 255)
    dense = round(_FOG[severity - 1] * 256)
    return rounded(x * (256 - dense) + haze * dense, 8)


def snow(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Whiten the air and let flakes fall."""
    chance, white = _SNOW[severity - 1]
    air = round(white * 256)
    x = rounded(x * (256 - air) + 255 * air, 8)
    flakes = _falling(x, seeds, chance, _FLAKE_PATH)
    return x + rounded((255 - x) * flakes * 230, 8)


def rain(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Darken the scene and draw streaks, all of an image in one direction."""
    chance, hidden = _RAIN[severity - 1]
    x = rounded(x * round(_RAIN_LIGHT * 256), 8)
    streaks = _falling(x, seeds, chance, _STREAK_PATH)
    return x + rounded((_STREAK_GREY - x) * streaks * round(hidden * 256), 8)


def _falling(x: Tensor, seeds: Tensor, chance: float, half: float) -> Tensor:
    """Return int32 [N, 1, H, W], 1 where something falls: along steep lines, `half` pixels long."""
    height, width = x.shape[-2:]
    scale = scale_of(x)
    grain = max(1, round(scale))
    rows, columns = (-(-side // grain) for side in (height, width))
    starts = (words(seeds, 0, 1, rows, columns) < round(chance * 2**32)).int()
    starts = starts.repeat_interleave(grain, 2).repeat_interleave(grain, 3)[..., :height, :width]
    steep = 32 + below(words(seeds, 1, 1)[:, 0], 17) - 8
    return torch.stack(along(starts, steep, half * scale)).amax(0)
