"""The forms of an exported task."""

from __future__ import annotations

import difflib
from pathlib import Path

from recast_core.errors import RecastError

FORMS = ("safetensors", "onnx", "onnx-tasks")


def form_of(output: Path, form: str) -> str:
    """The form of an export: as told, else as the file's suffix says.

    Raises:
        RecastError: a form that there is not, or another suffix than its own.
    """
    form = form or {".onnx": "onnx"}.get(output.suffix, "safetensors")
    if form not in FORMS:
        near = difflib.get_close_matches(form, FORMS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RecastError(f"unknown format {form!r}{hint}: choose {', '.join(FORMS)}")
    if form == "onnx-tasks":
        if output.is_file() or output.suffix in (".onnx", ".safetensors"):
            raise RecastError(f"cannot export to {output}: onnx-tasks writes a folder, name one")
    elif output.suffix != f".{form}":
        raise RecastError(
            f"cannot export to {output}: name a file that ends in .{form}, or give --format"
        )
    return form
