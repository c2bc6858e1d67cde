"""Masks that data sets for segmentation keep beside the photographs that they belong to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_MASK = re.compile(
    r"(?P<photograph>.+?)[ _.-]+"
    r"(?:masks?|seg|segmentation|segmap|trimap|gt|ground[ _-]?truth)(?:[ _-]?\d+)?",
    re.I,
)


def part_masks(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Part the images of a class into pictures of it and masks of these, both in their order.

    A mask is called as a photograph in its own folder is, and as a mask besides: ``a_mask.png``,
    ``a-seg.png``, ``a_mask_1.png`` beside ``a.jpg``. Without that photograph it is a picture.
    """
    named = {file: found for file in files if (found := _MASK.fullmatch(file.stem))}
    if not named:
        return list(files), []
    beside = {(file.parent, file.stem) for file in files}
    masks = {file for file, found in named.items() if (file.parent, found["photograph"]) in beside}
    return [file for file in files if file not in masks], sorted(masks)
