"""The tutorial's notebook says what its page says, and runs in a kernel of its own."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

from recast_core.settings import Settings

ROOT = Path(__file__).parents[1]
SMALL = ("backbone", "target", "epochs", "batch", "partition", "device")
_SMALLER = """
import sys; sys.path.insert(0, {root!r})
import recast
_whole = recast.simulate
recast.simulate = lambda **keywords: _whole(**(keywords | {small!r}))
"""


def notebook_module() -> Any:
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "docs" / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_the_page_cell_by_cell_and_shows_what_its_cells_found() -> None:
    made = notebook_module().made_of((ROOT / "docs" / "tutorial.md").read_text())
    kept = nbformat.read(ROOT / "docs" / "tutorial.ipynb", 4)
    nbformat.validate(kept)
    cells = [[(cell.cell_type, cell.source) for cell in book.cells] for book in (made, kept)]
    assert cells[0] == cells[1], "run `python docs/notebook.py FOLDER`"
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert len(code) >= 6
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum(bool(cell.outputs) for cell in code) >= 4
    assert str(Path.home()) not in json.dumps(outputs)


def test_the_notebook_runs(tiny: Callable[..., Settings], tmp_path: Path) -> None:
    book = notebook_module().made_of((ROOT / "docs" / "tutorial.md").read_text())
    small = {key: getattr(tiny(), key) for key in SMALL} | {"clients": 2, "rounds": 1}
    first = nbformat.v4.new_code_cell(_SMALLER.format(root=str(ROOT), small=small))
    book.cells.insert(0, first)
    # Sockets of files: a port that was free may be taken before the kernel listens there.
    with tempfile.TemporaryDirectory() as folder:
        kernel = AsyncKernelManager(transport="ipc", connection_file=f"{folder}/kernel.json")
        client = NotebookClient(
            book, km=kernel, timeout=900, startup_timeout=900,
            resources={"metadata": {"path": str(tmp_path)}},
        )  # fmt: skip
        client.execute()
    assert (tmp_path / "report.html").stat().st_size > 100_000
