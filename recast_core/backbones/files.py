"""Read a state dict from a file, without pickle."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from recast_core.errors import RecastError

_TORCH = (".pt", ".pth", ".th", ".bin")


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a ``.safetensors`` or torch file, on the CPU, and the file's metadata.

    A ``{"state_dict": ...}`` wrapping and a ``module.`` prefix (nn.DataParallel) are taken off.

    Raises:
        RecastError: no such file, another format, or something in it that is not a tensor.
    """
    if not path.is_file():
        raise RecastError(f"no weights at {path}{_near(path)}: give the path of an existing file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in _TORCH:
        raise RecastError(
            f"cannot read {path}: weights are .safetensors or a torch file ({', '.join(_TORCH)})"
        )
    return _read_torch(path), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt", device="cpu") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return _unprefixed(state), dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RecastError(
            f"{path} holds more than tensors and is not loaded, since that could run code: "
            "save the model's state_dict() alone, or as .safetensors"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise _broken(path, error) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise RecastError(f"{path} holds no state dict: save the model's state_dict() in it")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise RecastError(
                f"{path} holds {key!r}, which is no tensor: save the model's state_dict() alone"
            )
    return _unprefixed(dict(content))


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _broken(path: Path, error: Exception) -> RecastError:
    reason = " ".join(str(error).split())[:200]
    return RecastError(f"cannot read {path} ({reason}): download or save it again")


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    names = [file.name for file in path.parent.iterdir() if file.is_file()]
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    return f" (near names: {', '.join(near)})" if near else ""
