"""A registry that somebody edited is refused in one line, whatever was put where."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.report.data import report_data
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.record.control import close
from server.record.ledger import Ledger
from server.record.lock import hold
from server.standing import check_folder, reserved

Making = Callable[..., Any]

NAN = "x'" + "0000c07f" * 6 + "'"
EDITS = {
    "coefficients that are NaN": f"update rounds set coefficients = {NAN}",
    "coefficients that are text": "update rounds set coefficients = 'abcdabcdabcdabcdabcdabcd'",
    "coefficients of another length": "update rounds set coefficients = zeroblob(3)",
    "a count that is text": "update rounds set count = 'six'",
    "a duration that is text": "update rounds set seconds = 'long'",
    "a duration without end": "update rounds set seconds = 9e999",
    "an accuracy that is text": "update accuracies set accuracy = 'good'",
    "an accuracy without end": "update accuracies set accuracy = 9e999",
    "settings that are a list": "update runs set config = '[]'",
    "versions that are a number": "update runs set versions = '1'",
    "a start that is no time": "update runs set started = 'yesterday'",
    "a time without its zone": "update runs set started = '2026-01-01T00:00:00'",
    "a name that is bytes": "update tasks set name = x'ff'",
    "an identity that is text": "update runs set bank_sha256 = '" + "a" * 32 + "'",
    "bytes that nobody could send": "update ledger set bytes = 9223372036854775807",
    "bytes near the end of numbers": "update ledger set bytes = 9223372036854770000 where id = 1",
    "bytes below none": "update ledger set bytes = -5 where id = 2",
    "a count of messages below one": "update ledger set messages = -3 where id = 1",
    "a count of messages that is text": "update ledger set messages = 'x' where id = 1",
    "a longest message below none": "update ledger set longest = -1 where id = 1",
    "a longest message beyond all": "update ledger set longest = 9000000000000000000",
    "a count of images that is text": "update shares set train_examples = 'many'",
}


def _edit(made: Any, statement: str) -> None:
    with sqlite3.connect(made.registry.path) as file:
        file.execute("PRAGMA ignore_check_constraints = ON")
        file.execute(statement)
    file.close()


@pytest.mark.parametrize("what", EDITS)
def test_a_report_of_what_was_edited_ends_in_one_line(federation: Making, what: str) -> None:
    made = federation(rounds=2)
    made.go()
    report_data(made.registry.path)
    _edit(made, EDITS[what])
    with pytest.raises(RecastError, match="damaged") as caught:
        report_data(made.registry.path)
    assert len(str(caught.value).splitlines()) == 1


def test_text_of_a_registry_gives_no_orders_to_a_terminal(federation: Making) -> None:
    made = federation(rounds=1)
    made.go()
    _edit(made, "update runs set command = 'recast' || char(27) || '[2J' || char(10) || 'x'")
    last = made.registry.last_run()
    assert last.command == "recast [2J\nx"


@pytest.mark.parametrize(
    "statement",
    [
        "update runs set config = '[1,2'",
        "update runs set config = '" + "[" * 100_000 + "]" * 100_000 + "'",
        "update runs set started = 'when'",
        "update runs set status = x'ff'",
    ],
)
def test_what_was_edited_is_refused_in_one_line_by_whoever_writes_too(
    federation: Making, statement: str
) -> None:
    made = federation(rounds=1)
    made.go()
    _edit(made, statement)
    for write in (
        lambda: made.registry.resume_run(made.run),
        lambda: made.registry.finish_run(made.run, "failed"),
        lambda: made.registry.finish_with(made.run, 1),
        lambda: close(made.registry, made.run),
    ):
        with pytest.raises(RecastError, match="damaged") as caught:
            write()
        assert len(str(caught.value).splitlines()) == 1


def test_sums_and_maxima_over_what_was_edited_are_refused_too(federation: Making) -> None:
    made = federation(rounds=2)
    made.go()
    ledger = Ledger(made.registry)
    ledger.totals(made.run)
    _edit(made, "update ledger set bytes = 'many'")
    _edit(made, "update ledger set client = x'ff'")
    _edit(made, "update rounds set round = 'last' where round = 2")
    for read in (
        lambda: ledger.totals(made.run),
        lambda: ledger.deliveries(made.run),
        lambda: ledger.longest_updates(made.run),
        lambda: ledger.rows(),
        lambda: made.registry.last_rounds(made.run),
        lambda: made.registry.latest(made.run),
    ):
        with pytest.raises(RecastError, match="damaged"):
            read()


def test_a_server_looks_at_its_folder_before_it_waits_for_anybody(
    federation: Making, tmp_path: Path
) -> None:
    check_folder(Settings(), tmp_path)
    with hold(tmp_path), pytest.raises(RecastError, match=f"process {os.getpid()}.* is running"):
        check_folder(Settings(), tmp_path)
    check_folder(Settings(), tmp_path)
    made = federation(rounds=1)
    made.go()
    made.registry.resume_run(made.run)
    _edit(made, f"update rounds set coefficients = {NAN}")
    _edit(made, "update runs set config = '[]'")
    with pytest.raises(RecastError, match="damaged"):
        check_folder(Settings(), made.registry.path.parent)
    for spoil in (
        lambda path: path.write_bytes(bytes(range(256)) * 40),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.mkdir(),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        spoil(folder / "registry.sqlite")
        with pytest.raises(RecastError) as caught:
            check_folder(Settings(), folder)
        assert len(str(caught.value).splitlines()) == 1


def test_a_folder_that_a_server_waited_in_for_nothing_is_gone_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    with reserved(Settings(), folder), pytest.raises(RecastError, match="is running in"):
        check_folder(Settings(), folder)
    assert not folder.exists()
    folder.parent.mkdir(exist_ok=True)
    folder.touch()
    with pytest.raises(RecastError, match="is a file: name a folder"), hold(folder):
        pass
    folder.unlink()
    with reserved(Settings(), folder):
        (folder / "bank").touch()
    with reserved(Settings(), folder):
        (folder / "bank").unlink()
    assert folder.exists(), "it was there before"


@pytest.mark.parametrize("spoil", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_lock_that_is_no_file_is_refused_in_one_line(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    spoil(tmp_path / "server.lock")
    with pytest.raises(RecastError, match="cannot write"), hold(tmp_path):
        pass


@pytest.mark.parametrize(
    ("setting", "value"),
    [("rounds", "'two'"), ("rounds", "9e999"), ("tasks", "7"), ("deadline", "'x'")],
)
def test_a_setting_of_another_type_is_refused(federation: Making, setting: str, value: str) -> None:
    made = federation(rounds=1)
    made.go()
    _edit(made, f"update runs set config = json_set(config, '$.{setting}', {value})")
    with pytest.raises(RecastError, match="damaged"):
        made.registry.last_run()


def test_an_accuracy_of_a_task_that_is_not_there_is_refused(federation: Making) -> None:
    made = federation(rounds=1)
    made.go()
    _edit(made, "update accuracies set task = -5, after_task = -5")
    with pytest.raises(RecastError, match="damaged"):
        made.registry.accuracy_matrix(made.run)
