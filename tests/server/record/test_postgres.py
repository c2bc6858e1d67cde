"""The registry in PostgreSQL: a real server, that is killed and started again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.orm import Session

from recast_core.errors import RecastError
from server.record import opened as opened_module
from server.record.database import AwayError
from server.record.ledger import Ledger
from server.record.lock import is_held
from server.record.losses import client_losses, latest_losses, round_losses
from server.record.registry import Registry, Task
from server.record.removing import forget
from server.record.rewinding import ask_rewind, rewind_asked
from server.record.rows import FinishedRound, LedgerRow, Loss, Measured, Refusal
from tests.postgres import Cluster


def opened(folder: Path, url: str | None = None) -> Registry:
    return Registry(folder / "registry.sqlite", url=url)


def start(registry: Registry) -> int:
    run = registry.start_run({"clients": 2}, bytes(range(32)), {"recast": "0.1"}, "recast simulate")
    registry.add_task(run, "a", classes=10, examples=100, clients=2)
    return run


def round_(number: int) -> FinishedRound:
    return FinishedRound(1, number, np.full(24, number / 7, np.float32), 100, 2, 0.5)


def rows(number: int, count: int = 3) -> list[LedgerRow]:
    return [
        LedgerRow("a", number, str(i), "up", "coefficients", "message", 1000 + i)
        for i in range(count)
    ]


def test_what_was_recorded_is_there_when_the_folder_is_opened_again(
    database: str, tmp_path: Path
) -> None:
    with opened(tmp_path, database) as registry:
        run = start(registry)
        registry.describe_task(run, 1, 3, {"1": (10, 5), "2": (4, 2)})
        registry.describe_task(run, 1, 3, {"1": (11, 5)})
        registry.name_classes(run, 1, ["x", "y", "ä"])
        registry.record_rounds(run, [round_(1)], rows(1), [Refusal("9", "a", 1, "stale", "late")])
        registry.record_accuracies(
            run, [Measured(1, 1, 0.5, 0.25, 10, 2, 1, {"deployed": 0.1}, 0.4)]
        )
    assert not (tmp_path / "registry.sqlite").exists()
    with opened(tmp_path) as registry:
        assert np.array_equal(registry.coefficients(run, 1), np.full(24, 1 / 7, np.float32))
        assert [share.train_examples for share in registry.shares(run)] == [11, 4]
        assert registry.class_lists(run) == {1: ("x", "y", "ä")}
        assert Ledger(registry).totals(run) == {("a", "up", "message"): 3003}
        assert all(type(size) is int for size in Ledger(registry).totals(run).values())
        assert Ledger(registry).refusals(run) == {"stale": 1}
        assert registry.accuracies(run)[0].accuracy == 0.5
        assert registry.medians(run) == {1: 0.4}
        assert registry.runs()[0].config == {"clients": 2}
        with pytest.raises(RecastError, match="record each round once"):
            registry.record_rounds(run, [round_(1)], rows(1))
        assert Ledger(registry).totals(run) == {("a", "up", "message"): 3003}


def test_folders_that_share_a_database_see_their_own_runs(database: str, tmp_path: Path) -> None:
    with opened(tmp_path / "one", database) as one, opened(tmp_path / "two", database) as two:
        runs = [start(one), start(two), start(one)]
        assert [run.id for run in one.runs()] == [runs[0], runs[2]]
        assert [run.id for run in two.runs()] == [runs[1]]
        last = two.last_run()
        assert last is not None
        assert last.id == runs[1]
        one.record_rounds(runs[0], [round_(1)], rows(1))
        one.record_accuracies(runs[0], [Measured(1, 1, 0.5, None, 10, 2, 1, median=0.4)])
        ask_rewind(one, runs[0], "a", 0)
        rewind_asked(one, runs[0])
        two.record_rounds(runs[1], [round_(1)], rows(1))
        forget(one)
        assert one.runs() == []
        assert len(two.rounds(runs[1], 1)) == 1
    # Another folder of the same name, as after a container has moved, goes on with its runs.
    (tmp_path / "two" / "registry.url").unlink()
    with opened(tmp_path / "two", database) as again:
        assert [run.id for run in again.runs()] == [runs[1]]


def test_a_folder_s_runs_have_one_server_on_all_machines(database: str, tmp_path: Path) -> None:
    with opened(tmp_path / "one", database) as registry:
        registry.claim()
        assert is_held(tmp_path / "one")
        with opened(tmp_path / "two", database) as two:
            two.claim()
        with opened(tmp_path / "one") as other, pytest.raises(RecastError) as caught:
            other.claim()
        assert f"another server has the runs of {tmp_path / 'one'}" in str(caught.value)
    assert not is_held(tmp_path / "one")


def test_a_server_that_lost_its_claim_writes_nothing(
    database: str, tmp_path: Path, postgres: Cluster
) -> None:
    with opened(tmp_path, database) as first, opened(tmp_path) as second:
        run = start(first)
        first.claim()
        cut_off(postgres, database)
        second.claim()
        with pytest.raises(RecastError, match="another server has the runs"):
            first.record_rounds(run, [round_(1)], rows(1))
        second.record_rounds(run, [round_(1)], rows(1))
        assert Ledger(second).totals(run) == {("a", "up", "message"): 3003}


def cut_off(postgres: Cluster, database: str) -> None:
    """End all connections to a database."""
    name = database.rpartition("/")[2]
    others = f"FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    postgres.sql(f"SELECT pg_terminate_backend(pid) {others}")
    while postgres.sql(f"SELECT pid {others}"):  # which end, and free their locks, in their time
        time.sleep(0.01)


def test_a_database_that_is_killed_and_comes_back_loses_no_round_and_no_byte(
    database: str, tmp_path: Path, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_module, "PAUSE", 0.05)

    def trouble() -> None:
        for pause in (0.1, 0.13, 0.17, 0.11):
            time.sleep(pause)
            postgres.stop(kill=True)
            postgres.start()

    with opened(tmp_path, database) as registry:
        run = start(registry)
        registry.claim()
        thread = threading.Thread(target=trouble)
        thread.start()
        number = 0
        while thread.is_alive() or number < 20:
            number += 1
            registry.record_rounds(run, [round_(number)], rows(number))
            assert registry.latest(run) == (1, number)
        thread.join()
        assert [row.round for row in registry.rounds(run, 1)] == list(range(1, number + 1))
        assert Ledger(registry).totals(run, by=("round", "layer")) == {
            (each, "message"): 3003 for each in range(1, number + 1)
        }


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_connection_lost_around_a_commit_records_once(
    moment: str, database: str, tmp_path: Path, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, database) as registry:
        run = start(registry)
        registry.claim()
        commit, left = Session.commit, [1]

        def cut(session: Session) -> None:
            if left:
                left.pop()
                if moment == "after":
                    session.connection().connection.commit()
                cut_off(postgres, database)
            commit(session)

        monkeypatch.setattr(Session, "commit", cut)
        registry.record_rounds(run, [round_(1)], rows(1), [Refusal("9", "a", 1, "stale", "late")])
        assert not left
        assert registry.latest(run) == (1, 1)
        assert Ledger(registry).totals(run) == {("a", "up", "message"): 3003}
        assert Ledger(registry).refusals(run) == {"stale": 1}


READS: dict[str, Callable[[Registry, int], object]] = {
    "bytes of a round": lambda registry, run: Ledger(registry).of_round(run, "a", 1),
    "totals": lambda registry, run: Ledger(registry).totals(run),
    "longest": lambda registry, run: Ledger(registry).longest_updates(run),
    "refusals": lambda registry, run: Ledger(registry).refusals(run),
    "rows": lambda registry, run: Ledger(registry).rows(run),
    "losses": round_losses,
    "losses of a round": lambda registry, run: client_losses(registry, run, 1, 1),
    "latest losses": latest_losses,
    "rewinds": rewind_asked,
    "the last round": lambda registry, run: registry.latest(run),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_connection_lost_in_the_middle_of_reading_is_read_again(
    read: Callable[[Registry, int], object], database: str, tmp_path: Path, postgres: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(opened_module, "PAUSE", 0.05)
    cuts: list[str] = []

    def cut(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not cuts and "\nFROM " in statement:
            cuts.append(statement)
            cut_off(postgres, database)

    with opened(tmp_path, database) as registry:
        run = start(registry)
        known = replace(round_(1), losses={"9": Loss(0.5, 10)})
        registry.record_rounds(run, [known], rows(1), [Refusal("9", "a", 1, "stale", "late")])
        registry.claim()
        whole = read(registry, run)
        event.listen(Engine, "before_cursor_execute", cut)
        try:
            assert read(registry, run) == whole
        finally:
            event.remove(Engine, "before_cursor_execute", cut)
    assert len(cuts) == 1


def test_a_database_that_stays_away_is_one_line(
    database: str, tmp_path: Path, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_module, "PATIENCE", 1.0)
    with opened(tmp_path, database) as registry:
        run = start(registry)
        registry.claim()
        postgres.stop(kill=True)
        try:
            with pytest.raises(AwayError, match="check that the database is up") as caught:
                registry.record_rounds(run, [round_(1)], rows(1))
            with pytest.raises(RecastError, match="opening the registry"):
                opened(tmp_path)
        finally:
            postgres.start()
        assert "\n" not in str(caught.value)
        registry.record_rounds(run, [round_(1)], rows(1))
        assert registry.latest(run) == (1, 1)


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        ("UPDATE recast_version SET version_num = '0099'", "schema 99 .* upgrade recast"),
        ("UPDATE recast_version SET version_num = 'x'", "does not say its schema"),
        ("DROP TABLE recast_version", "another program's table 'accuracies'"),
    ],
)
def test_a_database_of_another_version_or_program_is_refused_untouched(
    statement: str, cause: str, database: str, tmp_path: Path, postgres: Cluster
) -> None:
    opened(tmp_path, database).close()
    postgres.sql(statement, database.rpartition("/")[2])
    with pytest.raises(RecastError, match=cause) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


def test_who_is_not_let_in_is_told_in_one_line_that_holds_no_password(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "not that")
    with pytest.raises(RecastError, match="password authentication failed") as caught:
        opened(tmp_path, database)
    assert "\n" not in str(caught.value)
    assert "not that" not in str(caught.value)
    assert not (tmp_path / "registry.url").exists()


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("postgresql://me:secret@h/d", "would be recorded with the run"),
        ("postgresql://me@h/d?password=secret", "would be recorded with the run"),
        ("postgresql://me@h", "names no database"),
        ("mysql://me@h/d", "no database that recast can use"),
        ("somewhere", "is no URL"),
    ],
)
def test_what_is_no_url_of_a_database_is_refused(url: str, cause: str, tmp_path: Path) -> None:
    with pytest.raises(RecastError, match=cause) as caught:
        opened(tmp_path, url)
    assert "secret" not in str(caught.value)


def test_a_folder_keeps_its_runs_where_they_are(database: str, tmp_path: Path) -> None:
    opened(tmp_path / "file").close()
    with pytest.raises(RecastError, match="keeps its runs in registry"):
        opened(tmp_path / "file", database)
    opened(tmp_path / "there", database).close()
    with pytest.raises(RecastError, match="keeps its runs in postgresql"):
        opened(tmp_path / "there", f"{database}2")


def test_writers_exclude_each_other_and_readers_see_one_moment(
    database: str, tmp_path: Path
) -> None:
    with opened(tmp_path, database) as registry, opened(tmp_path) as other:
        run = start(registry)
        threads = [
            threading.Thread(target=one.add_task, args=(run, f"{name}{number}"))
            for name, one in (("x", registry), ("y", other))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [task.number for task in registry.tasks(run)] == list(range(1, 18))
        with registry.reading() as session:
            before = len(session.scalars(select(Task)).all())
            other.add_task(run, "late")
            assert len(session.scalars(select(Task)).all()) == before
