"""Entering many rows at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, islice
from operator import attrgetter

from sqlalchemy import Insert, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from server.record.rows import FinishedRound, LedgerRow, Refusal
from server.record.tables import Base, HeldBack, LedgerEntry, RefusalEntry, ShareEntry

DETAIL_CHARACTERS = 300
# Of a table, as dictionaries: a million clients' at once would take gigabytes.
ROWS_AT_ONCE = 50_000
# Of values together: any SQLite takes 999.
ROWS_A_STATEMENT = 50

# On the tables: the ORM's own bulk insert builds each row twice.
_LEDGER = insert(Base.metadata.tables[LedgerEntry.__tablename__])
_SHARES = Base.metadata.tables[ShareEntry.__tablename__]
_HELD_BACK = insert(Base.metadata.tables[HeldBack.__tablename__])
_REFUSALS = insert(Base.metadata.tables[RefusalEntry.__tablename__])


def enter(session: Session, statement: Insert, rows: Iterable[Mapping[str, object]]) -> None:
    """Enter rows, ``ROWS_AT_ONCE`` of them after another: they need not all be there at once."""
    left = iter(rows)
    while some := list(islice(left, ROWS_AT_ONCE)):
        session.execute(statement, some)


def enter_tuples(
    session: Session, statement: Insert, names: Sequence[str], rows: Iterable[tuple[object, ...]]
) -> None:
    """As ``enter``, rows whose values have the order of ``names`` and need no conversion.

    SQLite's driver takes them as they are, and many rows of one statement in half the time that as
    many statements take.
    """
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        enter(session, statement, (dict(zip(names, row, strict=True)) for row in rows))
        return
    one = f"({', '.join('?' * len(names))})"
    text = f"INSERT INTO {statement.table.name} ({', '.join(names)}) VALUES "
    left = iter(rows)
    while some := list(islice(left, ROWS_AT_ONCE)):
        whole = len(some) - len(some) % ROWS_A_STATEMENT
        blocks = [
            tuple(chain.from_iterable(some[at : at + ROWS_A_STATEMENT]))
            for at in range(0, whole, ROWS_A_STATEMENT)
        ]
        if blocks:
            connection.exec_driver_sql(text + ", ".join([one] * ROWS_A_STATEMENT), blocks)
        if rest := some[whole:]:
            connection.exec_driver_sql(text + one, rest)


def enter_shares(session: Session, rows: Iterable[Mapping[str, object]]) -> None:
    """Enter what clients announced; where one has announced the task before, in place of that."""
    postgres = session.get_bind().dialect.name == "postgresql"
    entering = (postgresql if postgres else sqlite).insert(_SHARES)
    counts = {name: entering.excluded[name] for name in ("train_examples", "test_examples")}
    key = [*_SHARES.primary_key]
    statement = entering.on_conflict_do_update(index_elements=key, set_=counts)
    enter(session, statement, rows)


def add_held_back(session: Session, run: int, rounds: Sequence[FinishedRound]) -> None:
    """Enter which updates did not count whole."""
    rows = (
        (run, found.task, found.round, client, share)
        for found in rounds
        for client, share in found.held_back.items()
    )
    enter_tuples(session, _HELD_BACK, ("run", "task", "round", "client", "share"), rows)


def add_traffic(
    session: Session, run: int, rows: Sequence[LedgerRow], refusals: Sequence[Refusal]
) -> None:
    """Enter rows of the ledger, and refusals."""
    names = LedgerRow.__slots__
    values_of = attrgetter(*names)
    enter_tuples(session, _LEDGER, (*names, "run"), ((*values_of(row), run) for row in rows))
    if refusals:
        values = [
            asdict(refusal) | {"run": run, "detail": _one_line(refusal.detail)}
            for refusal in refusals
        ]
        session.execute(_REFUSALS, values)


def _one_line(detail: str) -> str:
    """The text of a client, which may be anything, as one short line."""
    return " ".join(detail.split())[:DETAIL_CHARACTERS]
