"""Regenerate the modules of the wire contract: ``python -m protos.generate``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def generate(root: Path = ROOT) -> int:
    """Write ``*_pb2.py`` and ``*_pb2.pyi`` beside each .proto file; returns protoc's exit code."""
    from grpc_tools import protoc

    files = sorted(str(path.relative_to(root)) for path in (root / "protos").glob("*.proto"))
    return int(
        protoc.main(["protoc", f"-I{root}", f"--python_out={root}", f"--pyi_out={root}", *files])
    )


if __name__ == "__main__":
    sys.exit(generate())
