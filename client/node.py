"""Who this client is: its name, its data and its folders, from Flower's context."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, RecordDict

from client.bank_cache import BankCache
from client.data import (
    ClientData,
    folder_task_data,
    load_dataset,
    parse_task,
    partition,
)
from client.data.class_ids import in_task_ids
from client.data.folder import drifted_name, what_is_there
from client.learners import learner, preprocess_of
from client.residuals import FileStore
from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.learner import Learner
from recast_core.secure.members import FEWEST, MOST, Identity, own_identity
from recast_core.secure.shamir import threshold
from recast_core.setting_values import Value, converted
from recast_core.settings import Settings
from recast_core.shifts.drift import at_round
from recast_core.start import Start

logger = logging.getLogger("recast.client")
_STATE = "recast"
_notes: dict[tuple[Path, int], dict[str, bool]] = {}


class OwnData:
    """A client's images of a task, in memory.

    Attributes:
        images: of training that have a label: uint8 ``[n, H, W]`` or ``[n, H, W, 3]``.
        labels: int64 ``[n]``, global class ids.
        all_images: of training, with and without a label: uint8 ``[N, ...]``.
        labelled: bool ``[N]``, which of them ``images`` are.
        test_images: uint8 ``[m, ...]``.
        test_labels: int64 ``[m]``.
        classes: of the task as a whole.
        class_names: what the labels count in.
        origin: see ``TaskData``.
    """

    def __init__(self, data: ClientData, origin: str = "") -> None:
        self.origin = origin
        self.all_images = torch.from_numpy(data.x_train)
        self.labelled = torch.from_numpy(data.labelled)
        every = bool(self.labelled.all())
        self.images = self.all_images if every else self.all_images[self.labelled]
        self.labels = torch.from_numpy(data.y_train[data.labelled])
        self.test_images = torch.from_numpy(data.x_test)
        self.test_labels = torch.from_numpy(data.y_test)
        self.classes = data.num_classes
        self.class_names = data.class_names

    @property
    def test_examples(self) -> int:
        """How many test images there are."""
        return len(self.test_labels)

    @property
    def local_classes(self) -> int:
        """Classes among the training images with a label."""
        return len(np.unique(self.labels.numpy()))


@dataclass(frozen=True)
class Node:
    """A client as its node config describes it: `client.holdings.Holdings` on a disk of its own.

    Attributes:
        number: a stable number that its random generator depends on: the partition's, or one given
            as ``client-number``.
        cache: where its banks are kept.
        data_dir: a folder with its own data, one file or folder for each task, or ``None``.
        share: which partition out of how many, or ``None``.
        settings: of the run.
        simulated: see ``Holdings``; said in its own node config, never by the server.
        least_sum: clients that any sum with its update must be of; never said by the server.
        certificate: in PEM, beside its key and its authority's certificate; ``None`` without.
        state: what Flower keeps between the messages of a run; a node that lost it answers
            "unknown task" and is greeted again.
    """

    number: int
    cache: Path
    data_dir: Path | None
    share: tuple[int, int] | None
    settings: Settings
    simulated: bool = False
    least_sum: int = FEWEST
    certificate: Path | None = None
    state: RecordDict = field(default_factory=RecordDict)

    @classmethod
    def from_context(cls, context: Context) -> Node:
        """The node of a Flower context.

        ``node_config`` takes ``data-dir``, ``cache-dir``, ``client-number``, ``backbone``,
        ``skip-unreadable``, ``least-sum`` and ``simulated`` (each optional), or Flower's own
        ``partition-id`` and ``num-partitions``.

        Raises:
            RecastError: neither a folder nor a partition, or a setting that does not fit.
        """
        config: Mapping[str, Value] = context.node_config
        # Settled first: another name for the backbone must not change what the run is.
        run_config = Settings.from_mapping(context.run_config).settled().as_dict()
        for own in ("backbone", "skip-unreadable"):
            if own in config:
                run_config[own] = config[own]
        least = _least_sum(config)
        if "least-sum" in config:  # a bound on sums means sums: nothing is sent openly then
            run_config["secure-aggregation"] = True
        data_dir = config.get("data-dir")
        share = None
        if data_dir is None:
            if "partition-id" not in config or "num-partitions" not in config:
                raise RecastError(
                    "this client has no data: name a folder with --node-config 'data-dir=\"PATH\"'"
                )
            share = int(config["partition-id"]), int(config["num-partitions"])
        number = int(config.get("client-number", share[0] if share else 0))
        cache = config.get("cache-dir")
        return cls(
            number=number,
            cache=Path(str(cache)) if cache else _default_cache(context.run_id, share),
            data_dir=None if data_dir is None else Path(str(data_dir)).expanduser(),
            share=share,
            settings=Settings.from_mapping(run_config),
            simulated=bool(config.get("simulated", False)),
            least_sum=least,
            certificate=Path(str(config["certificate"])) if "certificate" in config else None,
            state=context.state,
        )

    @property
    def tasks(self) -> Mapping[int, pb.Task]:
        """See ``Holdings``."""
        record = self.state.config_records.get(_STATE)
        known = b"" if record is None else record["tasks"]
        assert isinstance(known, bytes)
        return {task.id: task for task in pb.HelloRequest.FromString(known).tasks}

    @property
    def notes(self) -> MutableMapping[str, bool]:
        """See ``Holdings``."""
        return _notes.setdefault((self.cache, self.number), {})

    @property
    def residuals(self) -> FileStore:
        """See ``Holdings``."""
        return FileStore(self.cache)

    @property
    def identity(self) -> Identity | None:
        """See ``Holdings``."""
        if self.certificate is None:
            return None
        own = self.certificate
        return own_identity(own.with_suffix(".key"), own, own.with_name("ca.pem"))

    def remember(self, tasks: Mapping[int, pb.Task]) -> None:
        """See ``Holdings``."""
        known = pb.HelloRequest(tasks=tasks.values()).SerializeToString()
        self.state[_STATE] = ConfigRecord({"tasks": known})

    def holds(self, sha256: bytes) -> bool:
        """See ``Holdings``."""
        return BankCache(self.cache).holds(sha256)

    def store(self, content: bytes, sha256: bytes) -> None:
        """See ``Holdings``."""
        BankCache(self.cache).store(content, sha256)

    def keep(self, start: Start, method: str) -> None:
        """See ``Holdings``."""
        if method:
            BankCache(self.cache).store_method(method, start.sha256)
        else:
            self.store(start.to_bytes(), start.sha256)

    def model(self, prefix: int) -> Learner | None:
        """See ``Holdings``; a damaged file counts as absent."""
        cache = BankCache(self.cache)
        path = cache.find(prefix)
        if path is None:
            return None
        try:
            return learner(self.settings, path)
        except RecastError as error:
            if cache.holds(bytes.fromhex(path.stem)):
                raise
            logger.error("%s", error)
            return None

    def data(self, task: pb.Task, round_: int = 0) -> OwnData | None:
        """See ``Holdings``; a folder of its own goes by the task's name, a partition by source.

        In a folder, ``NAME@4`` is what ``NAME`` has become by the fourth round.
        """
        size = preprocess_of(self.settings.backbone).size
        skip = self.settings.skip_unreadable
        if self.data_dir is not None:
            own = self.data_dir
            found = folder_task_data(own, task.name, size, skip_unreadable=skip, round_=round_)
            if found is None:
                return None
            name = drifted_name(own, task.name, round_)
            return OwnData(in_task_ids(found, task.classes), name)
        if self.share is None or not task.source:
            return None
        index, count = self.share
        run = self.settings
        spec = at_round(parse_task(task.source), round_, run.rounds)
        dataset = load_dataset(spec, size, skip_unreadable=skip)
        mine = partition(
            dataset, index, count, scheme=run.partition, seed=run.seed, labels=run.labels
        )
        return OwnData(in_task_ids(mine, task.classes), str(spec))

    def lacks(self, task: pb.Task) -> str:
        """See ``Holdings``; logs what is in the folder, of which the server is told no names."""
        if self.data_dir is None:
            index, count = self.share or (0, 1)
            return f"no training images in share {index} of {count}"
        told, found = what_is_there(self.data_dir, task.name)
        text = "no part in task %s: %s; there is %s"
        logger.warning(text, task.name, told, found)
        return told


def _least_sum(config: Mapping[str, Value]) -> int:
    """What a node's own config says of the least sum.

    Raises:
        RecastError: no number of clients that a sum can have.
    """
    said = config.get("least-sum", FEWEST)
    try:
        least = converted(said, int)
    except ValueError:
        least = 0
    if not isinstance(least, int) or not FEWEST <= least <= threshold(MOST):
        raise RecastError(
            f"least-sum is {said!r}: give a number of clients from {FEWEST} to {threshold(MOST)}"
        )
    return least


def _default_cache(run_id: int, share: tuple[int, int] | None) -> Path:
    if share is None:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(root) / "recast" / "banks"
    # Simulated clients share a machine but not their memory of what they were sent.
    return Path(tempfile.gettempdir()) / f"recast-{os.getuid()}" / str(run_id) / str(share[0])
