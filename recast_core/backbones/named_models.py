"""Image classifiers of Hugging Face's `transformers` and of timm by name: ``hf:`` and ``timm:``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recast_core.backbones.module import ready_module
from recast_core.backbones.notes import note
from recast_core.backbones.preprocess import Preprocess
from recast_core.classes import some
from recast_core.classifier import find_head
from recast_core.errors import RecastError, in_a_line

_Loaded = tuple[nn.Module, Preprocess, tuple[str, ...]]
_EXTRA = "pip install 'recast-fl[models]'"


def load_hf(rest: str, weights: bool = True) -> _Loaded:
    """A classifier of images from Hugging Face's hub, or from a folder that it was saved to.

    Args:
        rest: ``NAME`` or a folder, such as ``google/vit-base-patch16-224``; then ``@size=...`` as
            for ``module:`` where it does not say how it takes images.
        weights: load them; where ``False`` they are random.

    Raises:
        RecastError: transformers is missing, no such model, or not a classifier of images.
    """
    name, at, options = rest.partition("@")
    name = _place(name)
    with _explained(f"hf:{name}", "transformers"):
        from transformers import AutoConfig, AutoModelForImageClassification
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        config = AutoConfig.from_pretrained(name)
        transformers_logging.set_verbosity_error()  # its report of keys has many lines
        missing: list[str] = []
        if weights:
            with _seeded():
                model, report = AutoModelForImageClassification.from_pretrained(
                    name, config=config, output_loading_info=True
                )
            missing = sorted(report["missing_keys"])
        else:
            with _seeded():
                model = AutoModelForImageClassification.from_config(config)
        images = _image_options(name)
    given = options if at else images
    model, preprocess = ready_module(model.eval(), f"hf:{name}", given)
    _check_missing(model, missing, name)
    labels = getattr(config, "id2label", None) or {}
    names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    # What transformers writes where nobody has said what the classes are.
    unnamed = all(label == f"LABEL_{index}" for index, label in enumerate(names))
    return model, preprocess, () if unnamed else names


def load_timm(rest: str, weights: bool = True) -> _Loaded:
    """A classifier of timm by name, from the hub, or from a folder (``local-dir:PATH``).

    Args:
        rest: ``NAME``, ``NAME:none`` for random weights, or ``local-dir:PATH``; then ``@size=...``
            as for ``module:``.
        weights: load them; where ``False`` they are random.

    Raises:
        RecastError: timm is missing, no such model, or weights that cannot be had.
    """
    name, at, options = rest.partition("@")
    bare = name.removesuffix(":none")
    with _explained(f"timm:{name}", "timm"):
        import timm

        with _seeded():
            model = timm.create_model(bare, pretrained=weights and bare == name)
        config = timm.data.resolve_data_config({}, model=model)
    size, mean, std = config["input_size"], config["mean"], config["std"]
    said = f"size={size[1]},channels={size[0]},mean={_slashed(mean)},std={_slashed(std)}"
    model, preprocess = ready_module(model.eval(), f"timm:{name}", options if at else said)
    labels = (getattr(model, "pretrained_cfg", None) or {}).get("label_names") or ()
    return model, preprocess, tuple(map(str, labels))


def _place(name: str) -> str:
    """The folder that ``name`` says, if it is one or can be nothing else; or a name of the hub.

    Raises:
        RecastError: a path where no folder is.
    """
    path = Path(name).expanduser()
    if path.exists():
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise RecastError(
            f"cannot load backbone hf:{name} (no folder is there): give one that "
            "save_pretrained() of a classifier of images wrote, or OWNER/NAME on the hub"
        )
    return name


def _check_missing(model: nn.Module, missing: list[str], name: str) -> None:
    """Refuse weights that lack more than the classifier; say so where they lack that.

    Raises:
        RecastError: names the first that is missing.
    """
    head = find_head(model)
    lacking = [key for key in missing if not (head and key.startswith(f"{head}."))]
    if lacking:
        raise RecastError(
            f"the weights of hf:{name} lack {len(lacking)} tensors, such as {lacking[0]}: give a "
            "whole classifier of images"
        )
    if missing:
        note(
            f"hf:{name} has no classifier ({some(missing)}): it is random, so that only tasks "
            "with a head of their own mean something"
        )


def _image_options(name: str) -> str:
    """What a model's image processor says, as options; empty where it has none."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError, ImportError):
        return ""
    said = []
    found: Any = getattr(processor, "crop_size", None) or getattr(processor, "size", None) or {}
    size = found.get("height") or found.get("shortest_edge")
    if size:
        said.append(f"size={size}")
    if getattr(processor, "do_normalize", True) is False:
        return ",".join([*said, "mean=0", "std=1"])  # what stands beside it is not used
    for key, attribute in (("mean", "image_mean"), ("std", "image_std")):
        if values := getattr(processor, attribute, None):
            said.append(f"{key}={_slashed(values)}")
    return ",".join(said)


def _slashed(values: Any) -> str:
    return "/".join(str(float(value)) for value in values)


class _Patience(logging.Filter):
    """One line in place of the two that the hub's client writes for each of its attempts."""

    def __init__(self, spec: str) -> None:
        super().__init__()
        self.spec, self.said = spec, False

    def filter(self, record: logging.LogRecord) -> bool:
        """See ``logging``."""
        if self.said:
            return False
        self.said = True
        record.msg = f"recast: {self.spec}: no answer from the hub, it is asked for half a minute"
        record.args = ()
        return True


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@contextmanager
def _explained(spec: str, package: str) -> Iterator[None]:
    """Turn what a library raises into one line."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    hub, patience = logging.getLogger("huggingface_hub.utils._http"), _Patience(spec)
    hub.addFilter(patience)
    try:
        yield
    except ModuleNotFoundError as error:
        raise RecastError(f"backbone {spec} needs {error.name or package}: `{_EXTRA}`") from error
    except RecastError:
        raise
    except Exception as error:  # a library's many kinds
        reason = "the hub does not answer" if patience.said else in_a_line(error, 200)
        kind, _, name = spec.partition(":")
        place = Path(name).expanduser().exists()
        remedy = (
            "give a folder that save_pretrained() of a classifier of images wrote"
            if place and kind == "hf"
            else "look its name up on the hub, or fetch it elsewhere and give its folder"
        )
        raise RecastError(f"cannot load backbone {spec} ({reason}): {remedy}") from error
    finally:
        hub.removeFilter(patience)
