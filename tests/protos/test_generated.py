"""The generated modules are what protoc makes of the .proto files today."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from protos.generate import ROOT, generate


def test_regenerating_gives_no_diff(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    (tmp_path / "protos").mkdir()
    sources = sorted((ROOT / "protos").glob("*.proto"))
    assert sources
    for source in sources:
        shutil.copy(source, tmp_path / "protos")
    assert generate(tmp_path) == 0
    made = sorted((tmp_path / "protos").glob("*_pb2.py*"))
    assert len(made) == 2 * len(sources)
    for path in made:
        assert path.read_bytes() == (ROOT / "protos" / path.name).read_bytes(), path.name
    kept = {path.name for path in (ROOT / "protos").glob("*_pb2*.py*")}
    assert kept == {path.name for path in made}, "a generated module without its .proto"
