"""What ARCHITECTURE.md says: rooms, the direction of imports, and no reach for private names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "protos": {"protos"},
    "recast_core": {"protos", "recast_core"},
    "client": {"protos", "recast_core", "client"},
    "server": {"protos", "recast_core", "server"},
    "experiments": {"protos", "recast_core", "client", "server", "experiments", "recast_fl"},
}
# Ours, and what would tie the method to one way of carrying messages.
WATCHED = {*MAY_IMPORT, "recast_fl", "tests", "flwr", "grpc"}
NOT_FOR_THE_METHOD = {"flwr", "grpc"}
# What every `nn.Module` holds, though a file of ours has an attribute of the name too.
OF_TORCH = {"_buffers", "_modules", "_parameters"}


def files(package: str) -> list[Path]:
    return [p for p in sorted((ROOT / package).rglob("*.py")) if "_pb2" not in p.name]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(module: ast.Module) -> Iterator[tuple[str, int]]:
    """The modules that a file imports, also where it does so late or for types alone."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole path"
            yield node.module or "", node.lineno


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(module: ast.Module) -> set[str]:
    """The private names that a file defines: functions, classes, variables and attributes."""
    found = set()
    for node in ast.walk(module):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.Attribute(attr=name, value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                found.add(name)
            case ast.arg(arg=name):
                found.add(name)
    return {name for name in found if private(name)}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    allowed = MAY_IMPORT[package]
    if package != "recast_core":
        allowed = allowed | NOT_FOR_THE_METHOD
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files(package)
        for name, line in imported(tree(path))
        if name.partition(".")[0] in WATCHED - allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_the_method_needs_neither_flower_nor_grpc() -> None:
    script = """
import pkgutil, sys
from importlib import import_module
sys.modules |= dict.fromkeys(("flwr", "grpc"))  # an import of either raises
import recast_core
for module in pkgutil.walk_packages(recast_core.__path__, "recast_core."):
    import_module(module.name)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert ended.returncode == 0, ended.stderr


def test_no_file_reaches_a_private_name_of_another() -> None:
    ours = [path for package in MAY_IMPORT for path in files(package)]
    everywhere = set().union(*(defined(tree(path)) for path in ours))
    wrong = []
    for path in ours:
        own = defined(tree(path))
        for node in ast.walk(tree(path)):
            reached = []
            if isinstance(node, ast.ImportFrom):
                if (node.module or "").partition(".")[0] in MAY_IMPORT:
                    reached = [alias.name for alias in node.names if private(alias.name)]
            elif isinstance(node, ast.Attribute) and private(node.attr):
                itself = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                if not itself and node.attr in everywhere - own - OF_TORCH:
                    reached = [node.attr]
            wrong += [f"{path.relative_to(ROOT)}:{node.lineno} reaches {name}" for name in reached]
    assert not wrong, "\n".join(wrong)


def test_the_page_draws_the_rooms_that_are_there_and_names_files_that_are() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    drawing = page.split("```")[1]
    drawn, package = {}, ""
    for line in drawing.strip().splitlines():
        if line.startswith(("recast.py", "recast_fl.py", "tests")):
            continue
        head, *rooms = re.findall(r"(?:^ *|  )([a-z_]+)/ ", line) or [""]
        if not line.startswith(" "):
            package, drawn[head] = head, set()
        elif head:
            drawn[package] |= {head, *rooms}
    assert drawn == {
        package: {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        for package in MAY_IMPORT
    }
    # Not all of the root: what other tests make there comes and goes meanwhile.
    kept = [path for name in (*MAY_IMPORT, "tests", "docs") for path in (ROOT / name).rglob("*.*")]
    there = [f"/{path.relative_to(ROOT)}" for path in (*ROOT.glob("*.*"), *kept)]
    for name in re.findall(r"`([\w/]+\.(?:py|md|proto))`", page):
        assert any(path.endswith(f"/{name}") for path in there), f"no {name}, which the page names"
    for path, attribute in re.findall(r"`((?:\w+\.)+)(register_\w+|run_federation)`", page):
        file = ROOT / path.replace(".", "/").rstrip("/")
        sources = [file.with_suffix(".py"), file / "__init__.py"]
        texts = [source.read_text() for source in sources if source.exists()]
        assert any(re.search(rf"\b{attribute}\b", text) for text in texts), path
