"""A path whose end the task grammar read as something else."""

from __future__ import annotations

from pathlib import Path


def cut_off(path: Path) -> str:
    """What to add to a message that ``path`` is missing, where a longer name is there."""
    if not path.parent.is_dir():
        return ""
    rest = len(path.name)
    longer = [
        file
        for file in sorted(path.parent.iterdir())
        if file.name.startswith(path.name) and file.name[rest:][:1] in ("@", "+", "[")
    ]
    return f'; if {longer[0]} is meant, put the path in quotes: KIND:"PATH"' if longer else ""
