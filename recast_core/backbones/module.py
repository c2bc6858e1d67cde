"""A backbone that a Python callable of the user's own returns."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recast_core.backbones.notes import note
from recast_core.backbones.preprocess import (
    GREY_MEAN,
    GREY_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LARGEST,
    Preprocess,
)
from recast_core.copies import copied
from recast_core.errors import RecastError, in_a_line
from recast_core.trial import declared_sizes, on_trial, output_tensor, unwrapped

_FORM = "write module:pkg.mod:factory or module:pkg.mod:factory@size=28,channels=1,mean=0.5,std=0.5"
_SCRIPTED = (
    "returned a scripted model, whose layers cannot be replaced: return the nn.Module that it was "
    "made of"
)
_OPTIONS = ("size", "channels", "mean", "std")
_NUMBER = re.compile(r"(\d+(\.\d*)?|\.\d+)(e-?\d+)?", re.ASCII)
_ROWS = 2
# Tried in turn on a model that says no size and fails at the usual one.
_USUAL, _OTHER_SIZES = 224, (32, 28, 64, 96, 128, 16, 8, 24, 48, 112, 160, 192, 256, 299, 384, 512)


def load_module(rest: str) -> tuple[nn.Module, Preprocess]:
    """What ``PKG.MOD:FACTORY`` returns, and how images are made ready for it.

    ``@size=28,channels=1,mean=0.13,std=0.31`` says how; several channels have ``mean=0.5/0.4/0.4``.
    What is not said is what the model says of itself (``image_size``, a timm or Hugging Face
    configuration), else the only size that it takes, or 224 px where it takes any, and ImageNet's
    mean and deviation.

    Raises:
        RecastError: a specification that cannot be read, a factory that fails, or a model that does
            not take such images or return logits.
    """
    name, at, text = rest.partition("@")
    # Before the factory, which may take long.
    _options(text, f"module:{rest}") if at else None
    return ready_module(_made(name), f"module:{name}", text if at else "")


def ready_module(model: nn.Module, spec: str, text: str = "") -> tuple[nn.Module, Preprocess]:
    """A stranger's model in float32, and how images are made ready for it.

    Args:
        model: a classifier of images.
        spec: as a user named it, without options.
        text: ``size=28,channels=1,...``; what is not said is what the model says of itself.

    Raises:
        RecastError: options that cannot be read, or a model that does not take such images or
            return logits.
    """
    options = _options(text, f"{spec}@{text}") if text else {}
    preprocess = _preprocess(model, options, spec)
    model.float()
    told = "size" in options or bool(declared_sizes(model))
    try:
        logits = _tried(model, preprocess)
    except RecastError as error:
        raise RecastError(f"{spec}: {error}") from error
    except Exception as error:  # a stranger's forward
        own = None if told else _own_size(model, preprocess)
        if own is None:
            raise RecastError(
                f"the model of {spec} fails on images of {preprocess.channels} x "
                f"{preprocess.size} x {preprocess.size} ({in_a_line(error)}): say what it takes, "
                f"as in {spec}@size=32,channels=1,mean=0.5,std=0.5"
            ) from error
        preprocess, logits = own
    else:
        if not told:
            note(
                f"{spec}: images are scaled to {_USUAL} x {_USUAL}, since it takes any size and "
                "says none; if it learned from smaller ones, add @size=..."
            )
    if logits.dim() != 2 or len(logits) != _ROWS:
        raise RecastError(
            f"the model of {spec} returns {list(logits.shape)} for {_ROWS} images: "
            "let it return logits [N, classes]"
        )
    return model, preprocess


def _tried(model: nn.Module, preprocess: Preprocess) -> Tensor:
    """What the model makes of ramps that are made ready so."""
    with on_trial(model):
        return output_tensor(model(preprocess.example(_ROWS)))


def _own_size(model: nn.Module, preprocess: Preprocess) -> tuple[Preprocess, Tensor] | None:
    """The size that a model takes which fails at the usual one, and what it returned."""
    for size in _OTHER_SIZES:
        own = replace(preprocess, size=size)
        try:
            return own, _tried(model, own)
        except Exception:  # a stranger's forward, of images that do not fit
            continue
    return None


def _made(name: str) -> nn.Module:
    path, colon, attribute = name.partition(":")
    if not colon or not path or not attribute:
        raise RecastError(f"cannot read backbone 'module:{name}': {_FORM}")
    try:
        with redirect_stdout(sys.stderr):  # standard output is for what the command says
            module = importlib.import_module(path)
    except ImportError as error:
        file = Path(path)
        if file.suffix == ".py" or file.parent != Path():
            raise RecastError(
                f"{path!r} is a file and not the name of a module: write module:{file.stem}:"
                f"{attribute} and set PYTHONPATH to {file.parent}"
            ) from error
        raise RecastError(
            f"cannot import {path!r} ({error}): install it or set PYTHONPATH to its folder"
        ) from error
    except (Exception, SystemExit) as error:
        raise RecastError(f"importing {path!r} fails ({in_a_line(error)}): correct it") from error
    factory: Callable[[], object] | None = getattr(module, attribute, None)
    if not callable(factory):
        names = [key for key in vars(module) if not key.startswith("_")]
        near = ", ".join(difflib.get_close_matches(attribute, names, n=3, cutoff=0.5)) or "none"
        raise RecastError(
            f"module {path!r} has no callable {attribute!r} (near names: {near}): "
            "write module:pkg.mod:factory"
        )
    if isinstance(factory, torch.jit.ScriptModule):
        raise RecastError(f"{name} {_SCRIPTED}")
    if isinstance(factory, nn.Module):
        return copied(factory)  # its module keeps it, and may be asked for it again
    try:
        with redirect_stdout(sys.stderr), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what it draws is the same for a server and all its clients
            model = factory()
    except RecastError:
        raise
    except (Exception, SystemExit) as error:
        raise RecastError(
            f"{name} raises {in_a_line(error)}: let it return a torch.nn.Module when it is called "
            "without arguments"
        ) from error
    if isinstance(model, torch.jit.ScriptModule):
        raise RecastError(f"{name} {_SCRIPTED}")
    if isinstance(model, Coroutine):
        model.close()  # which Python would complain of else
    if not isinstance(model, nn.Module):
        raise RecastError(f"{name} returned {type(model).__name__}: return a torch.nn.Module")
    return copied(model)  # as each core's own will be: what cannot be copied is told at once


def _options(text: str, rest: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        numbers = value.split("/")
        if key not in _OPTIONS or not equals or not all(map(_NUMBER.fullmatch, numbers)):
            near = difflib.get_close_matches(key, _OPTIONS, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]}?)" if near and near[0] != key else ""
            form = f"{rest.partition('@')[0]}@size=28,channels=1,mean=0.5,std=0.5"
            raise RecastError(f"cannot read {part!r} in {rest}{hint}: write {form}")
        if key in options:
            raise RecastError(f"{rest} says {key} twice: leave one out")
        options[key] = value
    for key in ("size", "channels"):
        if key in options and not (options[key].isdigit() and int(options[key])):
            raise RecastError(f"{key} of {rest} is {options[key]}: give a whole number")
    if int(options.get("size", 1)) > LARGEST:
        raise RecastError(f"size of {rest} is {options['size']}: give at most {LARGEST} pixels")
    return options


def _preprocess(model: nn.Module, options: Mapping[str, str], rest: str) -> Preprocess:
    model, _ = unwrapped(model)
    own = _own(model)
    sizes = declared_sizes(model)
    size = int(options["size"]) if "size" in options else sizes[0] if sizes else _USUAL
    given = {key: _floats(options[key]) for key in ("mean", "std") if key in options}
    lengths = {len(values) for values in given.values()} - {1}
    channels = int(options["channels"]) if "channels" in options else max(lengths, default=0)
    channels = channels or _declared_channels(model) or 3
    if channels not in (1, 3):
        raise RecastError(f"{rest} takes {channels} channels: images have 1 or 3")
    usual = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else (GREY_MEAN, GREY_STD)
    found = []
    for key, default in zip(("mean", "std"), usual, strict=True):
        values = given.get(key) or own.get(key) or default
        values = values * channels if len(values) == 1 else values
        if len(values) != channels:
            raise RecastError(
                f"{key} of {rest} has {len(values)} numbers for {channels} channels: give "
                "one, or one for each, as in mean=0.5/0.4/0.4"
            )
        found.append(values)
    if any(value > 1 for values in given.values() for value in values):
        raise RecastError(
            f"mean or std of {rest} is above 1: pixels are from 0 to 1, so divide it by 255"
        )
    if not all(value > 0 for value in found[1]):
        raise RecastError(f"std of {rest} is 0: give numbers above 0")
    if not given and not own:
        note(
            f"{rest}: images are normalised by ImageNet's mean and deviation; if yours "
            "differ, add @mean=...,std=..."
        )
    try:
        return Preprocess(size, found[0], found[1])
    except ValueError as error:
        raise RecastError(f"what {rest} says of its images: {error}") from error


def _own(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """Mean and deviation in a timm configuration."""
    for name in ("pretrained_cfg", "default_cfg"):
        held: Any = getattr(model, name, None)
        if isinstance(held, Mapping) and "mean" in held and "std" in held:
            return {key: tuple(map(float, held[key])) for key in ("mean", "std")}
    return {}


def _declared_channels(model: nn.Module) -> int | None:
    for name in ("num_channels", "in_chans"):
        value = getattr(getattr(model, "config", None), name, None)
        if isinstance(value, int):
            return value
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return None if first is None else first.in_channels


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(value) for value in text.split("/"))
