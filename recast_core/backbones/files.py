"""Read a state dict from a file, without running code that is in it."""

from __future__ import annotations

import argparse
import difflib
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from recast_core.backbones.sniff import foreign, is_safetensors, is_torch
from recast_core.backbones.unwrap import unprefixed, unwrap
from recast_core.errors import RecastError
from recast_core.unbroken import unbroken

# One of several files, or the index of them, as Hugging Face names them.
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.|\.index\.json$")
_TORCH = (".pt", ".pth", ".th", ".bin", ".ckpt", ".pth.tar", ".pt.tar", ".th.tar", ".tar")


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a ``.safetensors`` or torch file, on the CPU, and the file's metadata.

    Checkpoints are unwrapped, prefixes such as ``module.`` (nn.DataParallel) taken off, and that is
    said. Endings count in any case; what the file is decides, where that shows in its first bytes.

    Raises:
        RecastError: no such file, another format, or something in it that is not a tensor.
    """
    if path.is_dir():
        raise RecastError(
            f"{path} is a folder: give the path of the weights in it, or hf:{path} if it is a "
            "Hugging Face model's"
        )
    if not path.is_file():
        raise RecastError(f"no weights at {path}{_near(path)}: give the path of an existing file")
    name = path.name.lower()
    if _SHARD.search(name):
        raise RecastError(
            f"{path} is a part of a model's weights: give hf:{path.parent}, or join the parts"
        )
    if not name.endswith((".safetensors", *_TORCH)):
        raise RecastError(
            f"cannot read {path}: weights are .safetensors or a torch file ({', '.join(_TORCH)})"
        )
    try:
        what = foreign(path)
        if what is not None:
            raise RecastError(f"{path} {what}")
        safe = is_safetensors(path)
        with path.open("rb") as file:
            pickled = is_torch(file.read(2))
    except OSError as error:
        raise _broken(path, error) from error
    if safe or (name.endswith(".safetensors") and not pickled):
        return _read_safetensors(path)
    return _read_torch(path)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with unbroken(), safe_open(path, "pt", device="cpu") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return unprefixed(state, path), dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from error


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        # Not by its name, from which torch concludes what is in it.
        with unbroken(), torch.serialization.safe_globals(_harmless()), path.open("rb") as file:
            content: object = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RecastError(
            f"{path} holds more than tensors and is not loaded, since that could run code: "
            "save the model's state_dict() alone, or as .safetensors"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise _broken(path, error) from error
    return unwrap(content, path)


def _harmless() -> list[Any]:
    """What training scripts keep beside the weights and cannot run code: options and numbers."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    return [argparse.Namespace, scalar, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]


def _broken(path: Path, error: Exception) -> RecastError:
    reason = " ".join(str(error).split())[:200]
    return RecastError(f"cannot read {path} ({reason}): download or save it again")


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    names = [file.name for file in path.parent.iterdir() if file.is_file()]
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    return f" (near names: {', '.join(near)})" if near else ""
