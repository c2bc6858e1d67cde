"""Registries of before become those of today by Alembic, in a file and in a database."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text

from recast_core.errors import RecastError
from server.record.ledger import Ledger
from server.record.migrate import create, noted_schema, upgrade
from server.record.registry import Registry
from server.record.rows import LedgerRow
from server.record.tables import SCHEMA, VERSIONS, Base

OLD = Path(__file__).parents[2] / "formats" / "0.1" / "run"


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    url = "sqlite://" if request.param == "sqlite" else request.getfixturevalue("database")
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("make", [create, upgrade])
def test_made_at_once_or_by_every_revision_a_registry_is_the_same(
    engine: Engine, make: object
) -> None:
    with engine.begin() as connection:
        make(connection)  # type: ignore[operator]
        assert noted_schema(connection, "here") == SCHEMA
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSIONS, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []
        kinds = "INSERT INTO ledger (run, round, client, direction, kind, layer, bytes) "
        values = "VALUES (1, 0, '1', 'up', 'shares', 'wire', 3000000000)"
        connection.execute(
            text(
                "INSERT INTO runs (id, status, command, config, versions, bank_sha256, started, "
                "closed) VALUES (1, 'running', '', '{}', '{}', :bank, '', :no)"
            ),
            {"bank": bytes(32), "no": False},
        )
        connection.execute(text(kinds + values))
        connection.execute(text("INSERT INTO tasks VALUES (1, 1, 't', 0, 0, 0, '')"))
        spent = (
            "INSERT INTO privacy (run, task, round, kind, noise, rate, sampling, clip, threshold, "
        )
        rest = "task_epsilon, epsilon, delta, seeded) VALUES (1, 1, 1, 'distributed', 1, 1, 'all', "
        connection.execute(text(f"{spent}{rest}1, 1, 1, 1, 0.1, :no)"), {"no": False})
        found = connection.execute(text("SELECT bytes, messages, longest FROM ledger")).one()
        assert tuple(found) == (3_000_000_000, 1, None)


def test_a_registry_of_0_1_is_migrated_in_place_and_keeps_every_row(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "run")
    path = tmp_path / "run" / "registry.sqlite"

    def content() -> dict[str, list[tuple[object, ...]]]:
        with sqlite3.connect(path) as file:
            names = [row[0] for row in file.execute("SELECT name FROM sqlite_master")]
            found = {
                name: file.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
                for name in names
                if name in Base.metadata.tables
            }
        file.close()
        return found

    before = content()
    with Registry(path) as registry:
        after = content()
        registry.record_traffic(1, [LedgerRow("a", 1, "7", "up", "shares", "payload", 9)])
        assert Ledger(registry).totals(1, by=("kind", "layer"))["shares", "payload"] == 9
    assert sum(map(len, before.values())) > 20
    for name, rows in before.items():
        assert [row[: len(old)] for row, old in zip(after[name], rows, strict=True)] == rows
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        assert file.execute(f"SELECT version_num FROM {VERSIONS}").fetchall() == [(f"{SCHEMA:04}",)]
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    file.close()


def test_a_file_whose_revision_is_of_later_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    Registry(path).close()
    with sqlite3.connect(path) as file:
        file.execute(f"UPDATE {VERSIONS} SET version_num = '0099'")
    file.close()
    content = path.read_bytes()
    with pytest.raises(RecastError, match=r"has schema 99 and this recast reads \d+: upgrade"):
        Registry(path)
    assert path.read_bytes() == content
