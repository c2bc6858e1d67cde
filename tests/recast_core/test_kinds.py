"""Which clients may share a batch is found for all at once, as one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from recast_core.folded.chunks import CPU_ROWS, MOST_CPU_ROWS, rows_at_once, useful_threads
from recast_core.folded.kinds import kinds_of
from recast_core.folded.schedule import FoldedClient


def client(*labels: int, filler: int = 0, local: bool = False) -> FoldedClient:
    ids = torch.tensor(labels, dtype=torch.int64)
    nothing: Tensor = torch.arange(filler)
    return FoldedClient(torch.arange(len(ids)), ids, 0, nothing, local)


def test_of_each_client_its_images_and_classes_are_counted() -> None:
    clients = [
        client(3, 3, 5), client(), client(-1, 2), client(7), client(5, 3, 4),
        client(0, 1, 2, 2, filler=4, local=True),
    ]  # fmt: skip
    usual = [(c.labels.numel(), len(c.labels.unique()), c.local, len(c.filler)) for c in clients]
    assert kinds_of(clients).sizes == usual


def test_labels_are_looked_at_once_for_each_smallest_and_largest() -> None:
    clients = [
        client(3, 5),
        client(5, 4, 3),
        client(),
        client(2),
        client(2, 2),
        client(),
        client(3),
    ]
    assert kinds_of(clients).unlike == [0, 2, 3, 6]


def test_nobody_has_no_kinds() -> None:
    assert kinds_of([]).sizes == []
    assert kinds_of([]).unlike == []


def test_small_images_go_together_in_larger_steps_and_on_one_thread() -> None:
    assert rows_at_once(64 << 10) == rows_at_once(1 << 20) == CPU_ROWS
    assert rows_at_once(16 << 10) == 4 * CPU_ROWS
    assert rows_at_once(0) == rows_at_once(128) == MOST_CPU_ROWS
    assert useful_threads(4, 128 << 10) == 1
    assert useful_threads(4, 8 << 20) == 4
    assert useful_threads(0, 128) == 0
