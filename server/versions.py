"""What is installed, for the record of a run."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """The versions that decide a run's numbers."""
    found = {}
    for package in ("recast-fl", "flwr", "torch", "torchvision", "numpy", "protobuf"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
