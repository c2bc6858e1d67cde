"""The attached model, built once in a process for each backbone and bank."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch

from client.bank_cache import METHOD
from recast_core.backbones import Preprocess, load_backbone
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.files import read_text
from recast_core.folded import SplitModel, split_model
from recast_core.learner import BankLearner, Learner, MethodLearner, method_learner
from recast_core.mimicry import mimic
from recast_core.model import attach
from recast_core.settings import Settings
from recast_core.sources import source_kind
from recast_core.start import Start
from recast_core.statistics import own_statistics

_methods: dict[tuple[str, str, str, bool], MethodLearner] = {}
_loaded: dict[tuple[str, str, str, bool], tuple[SplitModel, Preprocess]] = {}


def attached(settings: Settings, path: Path) -> tuple[SplitModel, Preprocess]:
    """The backbone with the bank in a file that is named by its SHA-256, and how it takes images.

    The last one is kept: in a simulation every client has the same, each in a file of its own.

    Raises:
        RecastError: the file is damaged, or the bank is for another backbone.
    """
    key = settings.backbone, path.stem, settings.device, settings.recomputes
    if key not in _loaded:
        bank = TemplateBank.load(path, bytes.fromhex(path.stem))
        found = attached_to(settings, bank)
        _loaded.clear()
        _loaded[key] = found
    return _loaded[key]


def attached_to(settings: Settings, bank: TemplateBank) -> tuple[SplitModel, Preprocess]:
    """The settings' backbone with a bank, and how it takes images.

    Raises:
        RecastError: the bank is for another backbone.
    """
    loaded = load_backbone(settings.backbone)
    net = attach(loaded.model, bank, loaded.head)
    if settings.recomputes:
        net.statistics = own_statistics(net.backbone)
    split = split_model(
        net.to(pick_device(settings.device)), loaded.preprocess.size, loaded.preprocess.channels
    )
    return split, loaded.preprocess


def learner(settings: Settings, path: Path) -> Learner:
    """What trains with the file that ``BankCache.find`` gave.

    Raises:
        RecastError: the file is damaged, or is for another backbone.
    """
    if path.suffix != METHOD:
        return BankLearner(*attached(settings, path))
    found = learner_with(settings, read_text(path, "replace"))
    if found.start.sha256.hex() != path.stem:
        path.unlink(missing_ok=True)
        raise RecastError(f"{path} names another method or backbone: greet this client again")
    return found


def learner_with(settings: Settings, method: str) -> MethodLearner:
    """The backbone as a method learns with it; the last one is kept.

    Raises:
        RecastError: no such method, or it finds nothing in the backbone to train.
    """
    key = settings.backbone, method, settings.device, settings.recomputes
    if key not in _methods:
        loaded, device = load_backbone(settings.backbone), pick_device(settings.device)
        made = method_learner(
            method, loaded.model, loaded.preprocess, device, statistics=settings.recomputes
        )
        _methods.clear()
        _methods[key] = made
    return _methods[key]


def own_start(settings: Settings, method: str) -> Start | None:
    """What a client can make without being sent it: a method's start, or a bank that is derivable.

    Raises:
        RecastError: an unknown method, or a backbone that the method or the bank does not fit.
    """
    if method:
        return learner_with(settings, method).start
    return _derived_bank(settings) if source_kind(settings.source).derivable else None


@lru_cache(maxsize=1)
def _derived_bank(settings: Settings) -> TemplateBank:
    return mimic(load_backbone(settings.backbone).model, settings.recast())


@lru_cache(maxsize=2)
def preprocess_of(backbone: str) -> Preprocess:
    """How a backbone takes images."""
    return load_backbone(backbone).preprocess


def pick_device(name: str) -> torch.device:
    """The device of this name; ``auto`` is CUDA where there is one.

    Raises:
        RecastError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # A device that exists in name only fails at the first tensor, not here, unless it is tried.
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise RecastError(f"no device {name!r} on this machine: choose auto or cpu") from error
