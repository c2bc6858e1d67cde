"""Who this client is: its name, its data and its folders, from Flower's context."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context

from client.data import ClientData, folder_task_data, load_dataset, parse_task, partition
from recast_core.errors import RecastError
from recast_core.settings import Settings, Value


@dataclass(frozen=True)
class Node:
    """A client as its node config describes it.

    Attributes:
        number: a stable number that its random generator depends on: the partition's, or one given
            as ``client-number``.
        cache: where its banks are kept.
        data_dir: a folder with its own data, one file or folder for each task, or ``None``.
        share: which partition out of how many, or ``None``.
        settings: of the run.
    """

    number: int
    cache: Path
    data_dir: Path | None
    share: tuple[int, int] | None
    settings: Settings

    @classmethod
    def from_context(cls, context: Context) -> Node:
        """The node of a Flower context.

        ``node_config`` takes ``data-dir``, ``cache-dir``, ``client-number`` and ``backbone`` (each
        optional), or Flower's own ``partition-id`` and ``num-partitions``.

        Raises:
            RecastError: neither a folder nor a partition, or a setting that does not fit.
        """
        config: Mapping[str, Value] = context.node_config
        run_config = dict(context.run_config)
        if "backbone" in config:
            run_config["backbone"] = config["backbone"]
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
        )

    def data(self, name: str, source: str, size: int) -> ClientData | None:
        """The client's images of a task, or ``None`` if it has none.

        Args:
            name: the task's name, which its own folder goes by.
            source: where partitions come from.
            size: pixels a side, for images that come in many sizes.
        """
        if self.data_dir is not None:
            return folder_task_data(self.data_dir, name, size)
        if self.share is None or not source:
            return None
        index, count = self.share
        dataset = load_dataset(parse_task(source), size)
        return partition(
            dataset, index, count, scheme=self.settings.partition, seed=self.settings.seed
        )


def _default_cache(run_id: int, share: tuple[int, int] | None) -> Path:
    if share is None:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(root) / "recast" / "banks"
    # Simulated clients share a machine but not their memory of what they were sent.
    return Path(tempfile.gettempdir()) / f"recast-{os.getuid()}" / str(run_id) / str(share[0])
