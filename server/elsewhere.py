"""The head of a task that another run, or a library, has learned with the same bank."""

from __future__ import annotations

from pathlib import Path

from recast_core.bank import TemplateBank
from recast_core.classes import Names
from recast_core.errors import RecastError
from recast_core.kept_task import KeptTask
from recast_core.library import TaskLibrary
from recast_core.start import Start
from recast_core.wire.codec import Vector
from recast_core.wire.head_bytes import code_of, pack_head, unpack_head
from recast_core.wire.messages import RefusedError, snap, to_broadcast
from server.record.place import REGISTRY, is_there
from server.record.registry import Registry
from server.rounds.earlier import EarlierHead


def learned_elsewhere(kept: KeptTask, start: Start, width: int, bits: int) -> EarlierHead:
    """The head that ``task:NAME@PATH`` names.

    Args:
        kept: with the folder of a run, or of a ``TaskLibrary``.
        start: of this run.
        width: of the backbone's features.
        bits: of a broadcast's numbers, to which the task's coefficients are rounded.

    Raises:
        RecastError: no such task, one of another bank, or one without a head that could be kept.
    """
    folder = Path(kept.path).expanduser()
    if is_there(folder / REGISTRY):
        vector, kind, head, classes = _of_run(kept, folder, start)
    else:
        vector, kind, head, classes = _of_library(kept, folder, start)
    where = f"task {kept.name!r} in {folder}"
    try:
        found = unpack_head(head, kind)
        vector = snap(start, vector, bits)
    except RefusedError as error:
        raise RecastError(f"{where} cannot be used ({error}): learn it again") from error
    if found.in_features != width:
        raise RecastError(
            f"the head of {where} is for features of width {found.in_features}, this backbone's "
            f"have {width}: name a task of this backbone"
        )
    evaluation = to_broadcast(start, 0, 0, vector, None, bits)
    evaluation.head_kind, evaluation.head = code_of(kind), head
    earlier = EarlierHead(kept.name, vector=vector, classes=classes)
    earlier.learned(evaluation)
    return earlier


def _of_run(kept: KeptTask, folder: Path, start: Start) -> tuple[Vector, str, bytes, Names]:
    with Registry(folder / REGISTRY) as registry:
        run = registry.last_run()
        if run is None:
            raise RecastError(f"no run has been started in {folder}: name another folder")
        task = registry.task(run.id, kept.name)
        if run.bank_sha256 != start.sha256:
            raise RecastError(
                f"task {kept.name!r} in {folder} was learned with bank "
                f"{run.bank_sha256.hex()[:8]}, this run has {start.sha256.hex()[:8]}: give that "
                "run's bank with --bank"
            )
        found = registry.head(run.id, task.number)
        if found is None:
            raise RecastError(
                f"task {kept.name!r} in {folder} has no head that travelled: its clients kept "
                "theirs to themselves, or it is not finished; learn it with --head ridge, means or "
                "shared"
            )
        classes = registry.class_lists(run.id).get(task.number, ())
        vector = registry.coefficients(run.id, task.number)
    return vector, *found, classes


def _of_library(kept: KeptTask, folder: Path, start: Start) -> tuple[Vector, str, bytes, Names]:
    if not isinstance(start, TemplateBank):
        raise RecastError(f"{folder} is a library of coefficients: use method recast with it")
    task = TaskLibrary.load(folder, start)[kept.name]
    vector: Vector = task.coefficients.numpy().copy()
    return vector, "ridge", pack_head(task.head(), "ridge"), task.classes or ()
