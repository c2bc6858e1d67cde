"""What a run starts from: its bank, or its method's start, and its kind of head."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from flwr.serverapp import Grid

from recast_core.backbones import load_backbone
from recast_core.bank import TemplateBank
from recast_core.banks import PACKAGED, load_bank
from recast_core.errors import RecastError
from recast_core.files import write_atomically
from recast_core.heads import head_kind
from recast_core.learner import method_learner
from recast_core.methods.edits import taken_apart
from recast_core.mimicry import mimic
from recast_core.model import attach
from recast_core.objectives import outputs_of
from recast_core.secure.members import longest_hidden
from recast_core.settings import Settings
from recast_core.start import Start
from recast_core.task_spec import parse_tasks
from recast_core.wire.codec import encoded_length
from server.elsewhere import learned_elsewhere
from server.exchange.traffic import Limited
from server.rounds.earlier import EarlierHead
from server.rounds.gathering import ClassesOf, Heads

logger = logging.getLogger("recast.server")
# In place of a packaged bank: one that is made of the backbone.
OWN_BANK = "none"


def make_bank(settings: Settings) -> TemplateBank:
    """The bank that the settings describe, made or read.

    Raises:
        RecastError: no such bank, or one of another backbone.
    """
    backbone = load_backbone(settings.backbone).model
    name = bank_read(settings)
    if name is None:
        return mimic(backbone, settings.recast())
    bank = load_bank(name)
    if settings.bank:
        # Refuses a bank of another backbone now, where every client would later.
        attach(backbone, bank)
    return bank


def bank_read(settings: Settings) -> str | None:
    """The bank that is read, a file or a packaged one; ``None`` where one is made."""
    if settings.bank:
        return None if settings.bank == OWN_BANK else settings.bank
    return settings.backbone if settings.keeps and settings.backbone in PACKAGED else None


def make_start(settings: Settings) -> Start:
    """The bank that the settings describe, or the start of the method that they name."""
    method = settings.canonical_method()
    if method == "recast":
        return make_bank(settings)
    loaded = load_backbone(settings.backbone)
    return method_learner(method, loaded.model, loaded.preprocess, torch.device("cpu")).start


def make_heads(
    settings: Settings, classes_of: ClassesOf | None, start: Start | None = None
) -> Heads:
    """The kind of head that the settings name.

    Args:
        settings: of the run.
        classes_of: see ``Heads``.
        start: of the run, where an earlier task's head may be of another run.

    Raises:
        RecastError: an earlier task's head that is not there, or does not fit.
    """
    width = 0
    if head_kind(settings.head_kind).travels:
        backbone = load_backbone(settings.backbone)
        with torch.no_grad():
            width = taken_apart(backbone.model).features(backbone.preprocess.example(1)).shape[1]
    names, bits, outputs = classes_of, settings.broadcast_bits, 0
    if head_kind(settings.head_kind).kept:
        names = _deployed_classes(settings) or classes_of
        loaded = load_backbone(settings.backbone)
        outputs = outputs_of(loaded.model.get_submodule(loaded.head)) or 0
    earlier = None
    if settings.kept_task is not None:
        numbers = {spec.name: i for i, spec in enumerate(parse_tasks(settings.tasks), start=1)}
        name = settings.kept_task.name
        earlier = EarlierHead(name, numbers.get(name, 0), rounds=settings.rounds)
        if settings.kept_task.path:
            assert start is not None
            earlier = learned_elsewhere(settings.kept_task, start, width, bits)
    return Heads(
        settings.head_kind,
        width,
        settings.baseline,
        bits,
        names,
        outputs,
        max_weight=settings.max_weight,
        earlier=earlier,
        wary=settings.aggregation != "mean",
    )


def _deployed_classes(settings: Settings) -> ClassesOf | None:
    """The classes of the kept classifier, which every task then has, where its file names them."""
    names = load_backbone(settings.backbone).classes
    if not names:
        logger.warning(
            "%s does not name its classes: class ids are taken as the data's own",
            settings.backbone,
        )
        return None
    return lambda source: names


def bank_path(folder: Path, sha256: bytes) -> Path:
    """Where a run's folder keeps the bank of this identity."""
    return folder / f"bank-{sha256[:8].hex()}.safetensors"


def keep_bank(start: Start, folder: Path) -> None:
    """Save a bank in the run's folder; other methods' starts follow from the backbone.

    Raises:
        RecastError: the folder cannot be written.
    """
    if content := start.to_bytes():
        write_atomically(bank_path(folder, start.sha256), content)


def kept_start(folder: Path, sha256: bytes, settings: Settings) -> Start:
    """The start of a run that is continued, which may be another than ``sha256`` by now.

    Raises:
        RecastError: the bank's file is damaged, or the start cannot be made.
    """
    path = bank_path(folder, sha256)
    return TemplateBank.load(path, sha256) if path.exists() else make_start(settings)


def check_length(grid: Grid, start: Start, settings: Settings) -> None:
    """Refuse a run whose updates the grid cannot carry, before anybody trains.

    Raises:
        RecastError: it cannot.
    """
    longest = encoded_length(start.sent, settings.width(start.sent))
    if settings.secure_aggregation:
        longest = longest_hidden(start.sent)
    if isinstance(grid, Limited) and longest > grid.longest_reply:
        raise RecastError(
            f"an update of {longest:,} bytes, the link carries {grid.longest_reply:,}: use another "
            "method or fewer bits, or Flower's deployment"
        )
