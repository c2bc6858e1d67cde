"""The Python in the documents runs, on a backbone and rounds that cost next to nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import recast
from recast_core.settings import Settings

ROOT = Path(__file__).parents[1]
SMALL = ("backbone", "target", "epochs", "batch", "partition", "device")


@pytest.mark.parametrize("name", ["README.md", "docs/python.md", "docs/tutorial.md"])
def test_what_imports_recast_runs_as_it_stands(
    name: str, tiny: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, small = recast.simulate, {key: getattr(tiny(), key) for key in SMALL}

    def simulate(**keywords: Any) -> recast.Run:
        run_dir = str(tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}")
        return whole(**(keywords | small | {"clients": 2, "rounds": 1, "run_dir": run_dir}))

    monkeypatch.setattr(recast, "simulate", simulate)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(), re.S | re.M)
    chosen = [block for block in blocks if name != "README.md" or "import recast\n" in block]
    assert chosen
    space: dict[str, Any] = {}
    for block in chosen:
        exec(compile(block, name, "exec"), space)
