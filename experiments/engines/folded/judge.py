"""Features of a round's nodes, each image once, and the heads that are judged on them."""

from __future__ import annotations

import torch
from torch import Tensor

from client import answer
from experiments.engines.folded.held import Able
from experiments.engines.folded.models import FoldedModel
from protos import recast_v1_pb2 as pb
from recast_core.folded import Judged
from recast_core.folded import count_correct as count_with_ridge
from recast_core.heads import head_kind
from recast_core.wire.codec import Vector
from recast_core.wire.heads import TRAVELLING, count_correct, unpack_head_for
from recast_core.wire.messages import from_broadcast


class Judge:
    """Evaluates a broadcast, or tells of features, for all nodes that can take part."""

    def __init__(self, model: FoldedModel, able: Able) -> None:
        """Prepare to judge nodes that are ``able``, with their ``model``."""
        self._model, self._able = model, able
        able.task.belong_to(model)

    def counts(self, broadcast: pb.Broadcast) -> list[tuple[int, int]]:
        """Each node's right answers with the coefficients and without; see ``answer.evaluate``.

        Raises:
            RefusedError: a broadcast or a head that cannot be used.
        """
        vector = from_broadcast(self._model.start, broadcast)
        kind = answer.evaluated_kind(broadcast)
        if kind in TRAVELLING:
            return self._with_heads(broadcast, vector, kind)
        head_only = self._with_local(kind, self._start_table())
        if not broadcast.coefficients:
            return list(zip(head_only, head_only, strict=True))
        correct = self._with_local(kind, self._table(vector))
        return list(zip(correct, head_only, strict=True))

    def heads(self, broadcast: pb.Broadcast) -> list[pb.ToServer]:
        """What each node tells of its features; see ``answer.head``.

        Raises:
            RefusedError: a broadcast that cannot be used.
        """
        kind = answer.travelling(broadcast)
        table = self._of(broadcast, from_broadcast(self._model.start, broadcast))
        classes = self._able.task.classes
        return [
            answer.head_answer(
                broadcast, kind, _at(table, share.learn), share.learn_labels, classes
            )
            for share in self._able.shares
        ]

    def _with_heads(
        self, broadcast: pb.Broadcast, vector: Vector, kind: str
    ) -> list[tuple[int, int]]:
        correct = self._with_sent(broadcast.head, kind, self._of(broadcast, vector))
        if not broadcast.coefficients:
            return list(zip(correct, correct, strict=True))
        if not broadcast.start_head:
            return [(count, 0) for count in correct]
        head_only = self._with_sent(broadcast.start_head, kind, self._start_table())
        return list(zip(correct, head_only, strict=True))

    def _with_sent(self, content: bytes, kind: str, table: Tensor) -> list[int]:
        head = unpack_head_for(table, content, kind)
        return [
            count_correct(head, _at(table, share.judge), share.judge_labels)
            for share in self._able.shares
        ]

    def _with_local(self, kind: str, table: Tensor) -> list[int]:
        shares = self._able.shares
        if kind == "local":
            return count_with_ridge(
                table, [Judged(s.learn, s.learn_labels, s.judge, s.judge_labels) for s in shares]
            )
        counts = []
        for share in shares:
            labels = share.learn_labels.to(table.device)
            head = head_kind(kind).fit(_at(table, share.learn), labels, self._able.task.classes)
            counts.append(count_correct(head, _at(table, share.judge), share.judge_labels))
        return counts

    def _of(self, broadcast: pb.Broadcast, vector: Vector) -> Tensor:
        return self._table(vector) if broadcast.coefficients else self._start_table()

    def _table(self, vector: Vector) -> Tensor:
        """Features by row with ``vector``; rows that no node has are undefined."""
        rows = self._rows()
        found = self._model.features(self._able.task, rows, torch.from_numpy(vector))
        table = torch.empty(len(self._able.task.images), found.shape[1], device=found.device)
        table[rows.to(table.device)] = found
        return table

    def _start_table(self) -> Tensor:
        """Features by row at the bank's start, which are kept with the task."""
        task, rows, start = self._able.task, self._rows(), self._model.start.initial_vector
        if task.head_only is None:
            one = self._model.features(task, rows[:1], start)
            task.head_only = one.new_full((len(task.images), one.shape[1]), float("nan"))
        table = task.head_only
        missing = rows[table[rows.to(table.device), 0].isnan().cpu()]
        if len(missing):
            table[missing.to(table.device)] = self._model.features(task, missing, start)
        return table

    def _rows(self) -> Tensor:
        parts = [rows for share in self._able.shares for rows in (share.learn, share.judge)]
        found: Tensor = torch.cat(parts).unique()
        return found


def _at(table: Tensor, rows: Tensor) -> Tensor:
    return table[rows.to(table.device)]
