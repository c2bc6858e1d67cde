"""The ledger: who sent how many bytes, and which answers were refused."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from sqlalchemy import BigInteger, Select, cast, func, select

from recast_core.errors import RecastError
from recast_core.files import write_atomically
from server.record.history import History
from server.record.opened import insistently
from server.record.rows import Direction, Kind, LedgerRow, Refusal
from server.record.soundness import Kinds, sound, within
from server.record.sums import Sums, summed
from server.record.tables import LedgerEntry, RefusalEntry

Key = Literal["task", "round", "client", "direction", "kind", "layer"]
_KINDS: dict[str, Kinds] = {
    "run": int, "task": str | None, "round": int, "client": str | None, "direction": str,
    "kind": str, "layer": str, "bytes": int,
}  # fmt: skip
COLUMNS = ("run", "task", "round", "client", "direction", "kind", "layer", "bytes")


class Ledger:
    """A buffer of rows not yet recorded, and queries over those that are.

    Whatever carries messages adds rows, from any thread; whoever ends a round drains them into
    ``Registry.record_rounds``.
    """

    def __init__(self, registry: History, *, summary: bool = False) -> None:
        """Count for ``registry``; in a ``summary`` rows of most clients are summed by the round."""
        self._registry = registry
        self._lock = threading.Lock()
        self._rows: list[LedgerRow] = []
        self._sums = Sums() if summary else None
        self._refusals: list[Refusal] = []

    def add(self, *rows: LedgerRow) -> None:
        """Buffer rows."""
        with self._lock:
            if self._sums is None:
                self._rows.extend(rows)
            else:
                self._sums.add(rows)

    def refuse(self, refusal: Refusal) -> None:
        """Buffer a refusal."""
        with self._lock:
            self._refusals.append(refusal)

    def drain(self) -> list[LedgerRow]:
        """The buffered rows, which leave the buffer."""
        with self._lock:
            rows, self._rows = self._rows, []
            return rows if self._sums is None else self._sums.drain()

    def refusals_since(self, mark: int = 0) -> list[Refusal]:
        """The buffered refusals, which stay, without the first ``mark``."""
        with self._lock:
            return self._refusals[mark:]

    def drain_refusals(self) -> list[Refusal]:
        """The buffered refusals, which leave the buffer."""
        with self._lock:
            refusals, self._refusals = self._refusals, []
        return refusals if self._sums is None else summed(refusals)

    def totals(
        self, run: int, by: Sequence[Key] = ("task", "direction", "layer")
    ) -> dict[tuple[str | int | None, ...], int]:
        """Recorded bytes of a run, summed over rows that are equal in the columns ``by``.

        Args:
            run: the run.
            by: the columns, ``layer`` among them: layers measure the same bytes, so that a sum over
                layers would count them up to three times.

        Returns:
            The values of ``by`` in its order, to bytes; the task is a name or ``None``.

        Raises:
            ValueError: ``by`` lacks ``layer`` or names no column.
        """
        if "layer" not in by or not set(by) <= set(get_args(Key)):
            raise ValueError(f"totals by {tuple(by)}: name 'layer' and others of {get_args(Key)}")
        columns = [getattr(LedgerEntry, name) for name in by]
        query = select(*columns, self._sum(LedgerEntry.bytes)).where(LedgerEntry.run == run)
        kinds = [*(_KINDS[name] for name in by), int]
        found = _summed(self._registry, query.group_by(*columns).order_by(*columns), kinds)
        return {row[:-1]: row[-1] for row in found}

    def _sum(self, column: Any) -> Any:
        """Of a column; PostgreSQL sums large integers to decimals."""
        total = func.sum(column)
        return cast(total, BigInteger) if self._registry.place.url else total

    def longest_updates(self, run: int) -> dict[str | None, int]:
        """The bytes of the longest update by task; most of a hidden one are its shares."""
        found = self.longest(run, kind="coefficients", direction="up")
        for task, size in self.longest(run, kind="shares", direction="up").items():
            found[task] = found.get(task, 0) + size
        return found

    def longest(self, run: int, kind: Kind, direction: Direction) -> dict[str | None, int]:
        """The bytes of the longest recorded message of a kind, by task."""
        query = (
            select(
                LedgerEntry.task, func.max(func.coalesce(LedgerEntry.longest, LedgerEntry.bytes))
            )
            .where(LedgerEntry.run == run, LedgerEntry.layer == "message")
            .where(LedgerEntry.kind == kind, LedgerEntry.direction == direction)
            .group_by(LedgerEntry.task)
        )
        return dict(_summed(self._registry, query, (_KINDS["task"], int)))

    def deliveries(self, run: int) -> dict[str, int]:
        """How many bytes of the bank each client was sent; those that were sent none are absent."""
        totals = self.totals(run, by=("client", "kind", "layer"))
        return {
            str(client): sent
            for (client, kind, layer), sent in totals.items()
            if (kind, layer) == ("bank", "payload") and sent
        }

    def refusals(self, run: int) -> dict[str, int]:
        """How many recorded refusals of a run had each reason."""
        count = self._sum(RefusalEntry.times)
        query = select(RefusalEntry.reason, count).where(RefusalEntry.run == run)
        query = query.group_by(RefusalEntry.reason)
        return dict(_summed(self._registry, query, (str, int), RefusalEntry))

    def export_csv(self, path: Path, run: int | None = None) -> None:
        """Write the recorded rows, of every run where ``None``, as CSV; no task is an empty field.

        Raises:
            RecastError: the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(self.rows(run))
        write_atomically(path, text.getvalue().encode())

    def export_parquet(self, path: Path, run: int | None = None) -> None:
        """Write the recorded rows, of every run where ``None``, as Parquet; no task is null.

        Raises:
            RecastError: pyarrow is missing, or the file cannot be written.
        """
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise RecastError(
                "Parquet needs pyarrow: `pip install pyarrow`, or export CSV"
            ) from error
        types = [
            pyarrow.int64() if name in ("run", "round", "bytes") else pyarrow.string()
            for name in COLUMNS
        ]
        schema = pyarrow.schema(list(zip(COLUMNS, types, strict=True)))
        rows = self.rows(run)
        columns = [[row[index] for row in rows] for index in range(len(COLUMNS))]
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), buffer)
        write_atomically(path, buffer.getvalue())

    def of_round(self, run: int, task: str, round: int) -> tuple[int, int]:
        """Bytes of the serialised messages of one round of a task, up and down."""
        query = (
            select(LedgerEntry.direction, self._sum(LedgerEntry.bytes))
            .where(LedgerEntry.run == run, LedgerEntry.task == task, LedgerEntry.round == round)
            .where(LedgerEntry.layer == "message")
            .group_by(LedgerEntry.direction)
        )
        found: dict[str, int] = dict(_summed(self._registry, query, (str, int)))
        return found.get("up", 0), found.get("down", 0)

    def rows(self, run: int | None = None) -> list[tuple[str | int | None, ...]]:
        """The recorded rows, of every run where ``None``, with the fields of ``COLUMNS``."""
        query = select(*(getattr(LedgerEntry, name) for name in COLUMNS)).order_by(LedgerEntry.id)
        if run is not None:
            query = query.where(LedgerEntry.run == run)
        return _found(self._registry, query, [_KINDS[name] for name in COLUMNS], _sane_row)


def _sane_row(row: tuple[Any, ...]) -> tuple[Any, ...]:
    within("ledger.bytes", row[-1], row[-1], 0)
    return row


def _summed(
    registry: History,
    query: Any,
    kinds: Sequence[Kinds],
    table: type[LedgerEntry] | type[RefusalEntry] = LedgerEntry,
) -> list[Any]:
    """The rows that a query finds which sums up others, if all of these are sane."""
    counts: dict[str, tuple[Any, int]] = (
        {"times": (RefusalEntry.times, 1)}
        if table is RefusalEntry
        else {
            "bytes": (LedgerEntry.bytes, 0),
            "messages": (LedgerEntry.messages, 1),
            "longest": (func.coalesce(LedgerEntry.longest, 0), 0),
        }
    )
    for column, _ in counts.values():
        query = query.add_columns(func.min(column), func.max(column))

    def sane(row: tuple[Any, ...]) -> tuple[Any, ...]:
        bounds = row[len(kinds) :]
        for place, (name, (_, least)) in enumerate(counts.items()):
            low, high = bounds[2 * place], bounds[2 * place + 1]
            within(f"{table.__tablename__}.{name}", low, high, least)
        return row[: len(kinds)]

    return _found(registry, query, kinds, sane, table.__tablename__)


@insistently
def _found(
    registry: History,
    query: Select[Any],
    kinds: Sequence[Kinds],
    sane: Callable[[tuple[Any, ...]], tuple[Any, ...]],
    table: str = "ledger",
) -> list[Any]:
    """The rows that a query finds, each of its kinds (what comes after them is numbers)."""
    with registry.reading() as session:
        return [
            sane(sound(table, row, [*kinds, *[int] * (len(row) - len(kinds))]))
            for row in session.execute(query)
        ]
