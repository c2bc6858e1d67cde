"""The tutorial as a notebook: ``python docs/notebook.py FOLDER`` makes it, run there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbformat

HERE = Path(__file__).parent
PAGE, NOTEBOOK = HERE / "tutorial.md", HERE / "tutorial.ipynb"
_BLOCK = re.compile(r"^```python\n(.*?)^```\n?", re.S | re.M)


def made_of(page: str) -> Any:
    """The notebook of a page: its Python blocks as cells of code, the text between them as text."""
    cells, at = [], 0
    for block in _BLOCK.finditer(page):
        cells += [_text(page[at : block.start()]), nbformat.v4.new_code_cell(block[1].strip())]
        at = block.end()
    cells.append(_text(page[at:]))
    cells = [cell for cell in cells if cell.source]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": python})


def _text(part: str) -> Any:
    return nbformat.v4.new_markdown_cell(part.strip())


def main() -> None:
    """Write the notebook, with what its cells show."""
    from nbclient import NotebookClient

    notebook = made_of(PAGE.read_text())
    where = {"metadata": {"path": sys.argv[1]}}
    NotebookClient(notebook, timeout=1800, resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        # Warnings are of the machine that ran it.
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
