"""`import recast`: the public face, and what happens where another package has the name."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import recast

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=folder,
        check=False, timeout=900, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_every_public_name_is_there_and_the_types_say_the_same() -> None:
    assert sorted(recast.__all__) == recast.__all__
    tree = ast.parse((ROOT / "recast.py").read_text())
    typed = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.If)
        for line in node.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    public = {name for name in functions if not name.startswith("_")}
    assert set(recast.__all__) == (typed - {"Tasks"}) | public
    for name in recast.__all__:
        thing = getattr(recast, name)
        assert thing.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = recast.simulat  # type: ignore[attr-defined]


def test_the_import_is_quick_and_brings_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, recast; print(sorted({'torch', 'flwr', 'numpy', 'grpc'} & {*sys.modules}))"
    done = python(code, tmp_path, str(ROOT))
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_another_package_of_the_name_is_told_in_one_line_and_ours_has_a_second_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "recast").mkdir()
    (tmp_path / "recast" / "__init__.py").write_text("def int2uint(): ...\n")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    code = "import recast_fl as recast; print(recast.simulate.__name__, recast.RecastConfig)"
    done = python(code, tmp_path, path)
    assert done.stdout == "simulate <class 'recast_core.config.RecastConfig'>\n", done.stderr

    done = python("import recast_fl; recast_fl.main()", tmp_path, path)
    first = done.stderr.splitlines()[0]
    assert first == (
        f"recast: note: `import recast` gives {tmp_path / 'recast'}, another package: write "
        "`import recast_fl as recast`, or take that one away"
    )


def test_the_second_name_is_the_same_module_where_nothing_is_in_the_way(tmp_path: Path) -> None:
    done = python(
        "import recast, recast_fl; print(recast_fl.simulate is recast.simulate)",
        tmp_path,
        str(ROOT),
    )
    assert done.stdout == "True\n", done.stderr
