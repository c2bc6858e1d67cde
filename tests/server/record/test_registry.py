from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sqlalchemy import create_engine

from recast_core.errors import RecastError
from server.record.ledger import Ledger
from server.record.registry import Registry
from server.record.rows import FinishedRound, LedgerRow, Measured, Refusal
from tests.examples import examples

ROOT = Path(__file__).parents[3]
ROWS = 100

# Writes rounds after those it finds, saying so after each, until it is killed. The package
# recast_core is entered without its __init__, which would load torch at every start.
WRITER = """
import os, signal, sys, types
from pathlib import Path
package = types.ModuleType("recast_core")
package.__path__ = [str(Path("recast_core").resolve())]
sys.modules["recast_core"] = package
import numpy as np
from sqlalchemy import Engine, event
from server.record.registry import Registry
from server.record.rows import FinishedRound, LedgerRow, Refusal

path, rows, die_at, moment = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

def die(connection):
    if moment == "after":
        connection.connection.commit()
    os.kill(os.getpid(), signal.SIGKILL)

registry = Registry(path)
n = (registry.latest(1) or (1, 0))[1]
while True:
    n += 1
    if n == die_at:
        event.listen(Engine, "commit", die)
    ledger = [LedgerRow("a", n, str(i), "up", "coefficients", "payload", n) for i in range(rows)]
    found = FinishedRound(1, n, np.full(24, n / 7, np.float32), 1, 1, 0.1)
    registry.record_rounds(1, [found], ledger, [Refusal("9", "a", n, "stale", "late")])
    print(n, flush=True)
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry.db") as registry:
        yield registry


def start(registry: Registry, *tasks: str) -> int:
    run = registry.start_run({"clients": 2}, bytes(range(32)), {"recast": "0.1"}, "recast simulate")
    for name in tasks:
        registry.add_task(run, name, classes=10, examples=100, clients=2)
    return run


def record(
    registry: Registry,
    run: int,
    task: int,
    round: int,
    coefficients: np.ndarray | None = None,
    rows: tuple[LedgerRow, ...] = (),
    accuracy: float | None = None,
) -> None:
    vector = np.zeros(4, np.float32) if coefficients is None else coefficients
    found = FinishedRound(task, round, vector, 100, 2, 1.5, accuracy)
    registry.record_rounds(run, [found], rows)


def writer(path: Path, die_at: int = 0, moment: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(ROWS), str(die_at), moment],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def assert_whole(path: Path, reported: int) -> int:
    """Every reported round is there, and each with exactly its own rows; the last one's number."""
    with Registry(path) as registry:
        rounds = registry.rounds(1, 1)
        last = len(rounds)
        assert [row.round for row in rounds] == list(range(1, last + 1))
        # One round more may be on the disk: killed after the commit, before the report.
        assert reported <= last <= reported + 1
        for n in range(1, last + 1):
            assert np.array_equal(registry.coefficients(1, 1, n), np.full(24, n / 7, np.float32))
        ledger = Ledger(registry)
        assert ledger.totals(1, by=("round", "layer")) == {
            (n, "payload"): ROWS * n for n in range(1, last + 1)
        }
        assert [refusal.round for refusal in registry.refusals(1)] == list(range(1, last + 1))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    return last


def test_sigkill_at_any_moment_loses_no_reported_round(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with Registry(path) as registry:
        start(registry, "a")
    chance = random.Random(0)
    last = 0
    for _ in range(6):
        child = writer(path)
        assert child.stdout is not None
        reported = last
        for _ in range(chance.randint(1, 8)):
            reported = int(child.stdout.readline())
        time.sleep(chance.uniform(0, 0.02))
        child.send_signal(signal.SIGKILL)
        reported = max([reported, *map(int, child.stdout.read().split())])
        assert child.wait() == -signal.SIGKILL
        assert reported > last
        last = assert_whole(path, reported)


@pytest.mark.parametrize(("moment", "kept"), [("before", 3), ("after", 4)])
def test_sigkill_around_the_first_commit_leaves_all_of_a_round_or_nothing(
    tmp_path: Path, moment: str, kept: int
) -> None:
    path = tmp_path / "registry.db"
    with Registry(path) as registry:
        start(registry, "a")
    child = writer(path, 4, moment)
    output, _ = child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert output.split() == ["1", "2", "3"]
    assert assert_whole(path, 3) == kept


def test_every_connection_is_durable_and_keeps_foreign_keys(registry: Registry) -> None:
    def pragmas() -> list[object]:
        with registry.reading() as session:
            connection = session.connection()
            return [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]

    with registry.reading() as held:
        held.connection()
        assert pragmas() == ["wal", 2, 1]
    assert pragmas() == ["wal", 2, 1]


def test_coefficients_come_back_with_exact_bits(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry.db") as registry:
        run = start(registry, "a")
        counter = iter(range(1, 10_000))
        finite = st.floats(width=32, allow_nan=False, allow_infinity=False)

        @examples(40)
        @given(arrays(np.float32, st.integers(1, 64), elements=finite))
        def check(vector: np.ndarray) -> None:
            record(registry, run, 1, next(counter), vector)
            found = registry.coefficients(run, 1)
            assert found.dtype == np.float32
            assert found.tobytes() == vector.tobytes()
            assert found.flags.writeable

        check()


def test_coefficients_of_any_memory_layout_are_kept_in_order(registry: Registry) -> None:
    run = start(registry, "a")
    vector = np.arange(8, dtype=np.float32)[::-2]
    record(registry, run, 1, 1, vector)
    assert registry.coefficients(run, 1).tolist() == [7, 5, 3, 1]


@pytest.mark.parametrize(
    ("vector", "cause"),
    [
        (np.zeros(4), "float64"),
        (np.zeros((2, 2), np.float32), r"\[2, 2\]"),
        (np.array([1, np.nan], np.float32), "NaN"),
        (np.array([np.inf], np.float32), "infinity"),
    ],
)
def test_coefficients_that_are_none_are_refused(
    registry: Registry, vector: np.ndarray, cause: str
) -> None:
    run = start(registry, "a")
    with pytest.raises(RecastError, match=cause):
        record(registry, run, 1, 1, vector)
    assert registry.rounds(run, 1) == []


def test_a_method_that_trains_nothing_has_rounds_of_no_numbers(registry: Registry) -> None:
    run = start(registry, "a")
    record(registry, run, 1, 1, np.zeros(0, np.float32))
    assert registry.coefficients(run, 1).size == 0


def test_a_blob_of_another_length_is_reported_as_damage(registry: Registry) -> None:
    run = start(registry, "a")
    record(registry, run, 1, 1)
    with sqlite3.connect(registry.path) as connection:
        connection.execute("UPDATE rounds SET coefficients = x'000000'")
    connection.close()
    with pytest.raises(RecastError, match="holds 3 bytes for 4 coefficients"):
        registry.coefficients(run, 1)


def test_a_round_with_a_bad_row_records_nothing(registry: Registry) -> None:
    run = start(registry, "a")
    good = LedgerRow("a", 1, "7", "up", "coefficients", "payload", 24)
    bad = LedgerRow("unknown", 1, "7", "up", "coefficients", "payload", 24)
    with pytest.raises(RecastError, match="FOREIGN KEY"):
        record(registry, run, 1, 1, rows=(good, bad))
    assert registry.latest(run) is None
    assert Ledger(registry).totals(run) == {}


def test_a_round_is_recorded_once(registry: Registry) -> None:
    run = start(registry, "a")
    record(registry, run, 1, 1, np.ones(4, np.float32))
    with pytest.raises(RecastError, match="record each round once"):
        record(registry, run, 1, 1)
    assert registry.coefficients(run, 1).tolist() == [1, 1, 1, 1]


def test_latest_is_the_round_recorded_last_and_coefficients_default_to_it(
    registry: Registry,
) -> None:
    run = start(registry, "a", "b")
    assert registry.latest(run) is None
    for task, round_ in [(1, 1), (1, 2), (2, 1)]:
        record(registry, run, task, round_, np.full(4, 10 * task + round_, np.float32))
        assert registry.latest(run) == (task, round_)
    assert registry.coefficients(run, 1)[0] == 12
    assert registry.coefficients(run, 1, 1)[0] == 11
    assert registry.coefficients(run, 2)[0] == 21
    for arguments in [(run, 1, 3), (run, 3), (run + 1, 1)]:
        with pytest.raises(RecastError, match="has no finished round"):
            registry.coefficients(*arguments)


def test_the_command_that_is_kept_holds_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "recast serve --web-token s3cret --token=s3cret --web 127.0.0.1:1 --token s3cret"
    monkeypatch.setattr(sys, "argv", words.split())
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {})
        kept = next(row.command for row in registry.runs() if row.id == run)
    assert kept == words.replace("s3cret", "HIDDEN")


def test_a_run_keeps_what_it_was_started_with_and_how_it_ended(registry: Registry) -> None:
    assert registry.last_run() is None
    config = {"head": "ridge", "path": Path("x"), "nested": {"bits": 8, "none": None}}
    run = registry.start_run(config, b"\x01" * 32, {"torch": "2.6"}, command="recast simulate -n 3")
    found = registry.last_run()
    assert found is not None
    assert (found.id, found.status, found.finished) == (run, "running", None)
    assert found.config == {"head": "ridge", "path": "x", "nested": {"bits": 8, "none": None}}
    assert (found.bank_sha256, found.versions) == (b"\x01" * 32, {"torch": "2.6"})
    assert found.command == "recast simulate -n 3"
    assert found.started.endswith("+00:00")
    registry.finish_run(run, "interrupted")
    second = start(registry)
    assert [(row.id, row.status) for row in registry.runs()] == [
        (run, "interrupted"),
        (second, "running"),
    ]
    with pytest.raises(RecastError, match="no run 99"):
        registry.finish_run(99, "finished")


def test_tasks_are_numbered_within_their_run_and_unique_by_name(registry: Registry) -> None:
    first, second = start(registry, "a", "b"), start(registry, "b")
    assert [(task.number, task.name) for task in registry.tasks(first)] == [(1, "a"), (2, "b")]
    assert [(task.number, task.name) for task in registry.tasks(second)] == [(1, "b")]
    assert registry.task(first, "b").number == 2
    with pytest.raises(RecastError, match="UNIQUE"):
        registry.add_task(first, "a", 10)
    with pytest.raises(RecastError, match="FOREIGN KEY"):
        registry.add_task(99, "a", 10)
    with pytest.raises(RecastError, match=r"no task 'c'.*\(a, b\)"):
        registry.task(first, "c")


def test_the_accuracy_matrix_has_a_row_for_the_task_learned_last(registry: Registry) -> None:
    run = start(registry, "a", "b")
    for measured in (
        Measured(1, 5, 0.9, 0.5, 50, 2, after_task=1),
        Measured(2, 5, 0.6, None, 50, 2, after_task=2),
        Measured(1, 5, 0.7, 0.5, 50, 2, after_task=2),
        Measured(1, 5, 0.8, 0.5, 50, 2, after_task=2),
    ):
        registry.record_accuracies(run, [measured])
    np.testing.assert_array_equal(registry.accuracy_matrix(run), [[0.9, np.nan], [0.8, 0.6]])
    assert [entry.head_only_accuracy for entry in registry.accuracies(run)] == [0.5, None, 0.5, 0.5]
    with pytest.raises(RecastError, match="accuracy BETWEEN"):
        registry.record_accuracies(run, [Measured(1, 5, 90.0, None, 50, 2, after_task=1)])


def test_an_accuracy_and_its_traffic_are_recorded_together(registry: Registry) -> None:
    run = start(registry, "a")
    row = LedgerRow("a", 1, "7", "up", "metrics", "message", 12)
    refusal = Refusal("8", "a", 1, "no-data", "nothing\nheld out " + "x" * 1000)
    registry.record_accuracies(run, [Measured(1, 1, 0.5, None, 50, 1, 1)], [row], [refusal])
    with pytest.raises(RecastError):
        registry.record_accuracies(run, [Measured(2, 1, 0.5, None, 50, 1, 2)], [row])
    assert Ledger(registry).totals(run) == {("a", "up", "message"): 12}
    (found,) = registry.refusals(run)
    assert found.detail.startswith("nothing held out xxx")
    assert len(found.detail) == 300


def test_what_was_recorded_is_there_when_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a?b#c%20.db"
    with Registry(path) as registry:
        run = start(registry, "a")
        record(registry, run, 1, 1, accuracy=0.25)
    assert path.is_file()
    with Registry(path) as registry:
        assert [row.accuracy for row in registry.rounds(run, 1)] == [0.25]


def test_threads_and_openings_at_once_lose_no_round(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    errors: list[BaseException] = []
    gate = threading.Barrier(4)

    def work(name: str) -> None:
        try:
            gate.wait()
            with Registry(path) as registry:
                run = start(registry, name)
                for round_ in range(1, 11):
                    record(registry, run, 1, round_)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Registry(path) as registry:
        assert [len(registry.rounds(run.id, 1)) for run in registry.runs()] == [10] * 4


def test_a_registry_that_another_process_is_completing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY]

    class Cursor(sqlite3.Cursor):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if "journal_mode" in statement and busy:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = busy.pop()
                raise error
            return super().execute(statement, *values)

    class Connection(sqlite3.Connection):
        def cursor(self, *_: Any) -> Cursor:  # type: ignore[override]
            return Cursor(self)

    def engine(url: Any, connect_args: dict[str, Any], **options: Any) -> Any:
        return create_engine(url, connect_args=connect_args | {"factory": Connection}, **options)

    monkeypatch.setattr("server.record.sqlite.create_engine", engine)
    with Registry(tmp_path / "registry.db") as registry:
        start(registry)
    assert not busy


def assert_refused_untouched(path: Path, cause: str) -> None:
    before = path.read_bytes()
    with pytest.raises(RecastError, match=cause) as caught:
        Registry(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    assert_refused_untouched(path, "file is not a database")


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("CREATE TABLE mine (x)", "another program's database"),
        ("PRAGMA application_id = 7", "another program's database"),
        ("PRAGMA user_version = 3", "another program's database"),
    ],
)
def test_another_programs_database_is_refused_untouched(
    tmp_path: Path, script: str, cause: str
) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()
    assert_refused_untouched(path, cause)


def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    Registry(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert_refused_untouched(path, "schema 99 .* upgrade recast")


def test_a_folder_or_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "registry.db"):
        with pytest.raises(RecastError) as caught:
            Registry(path)
        assert "\n" not in str(caught.value)
