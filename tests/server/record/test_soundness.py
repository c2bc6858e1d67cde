"""A registry that somebody edited is refused in one line, whatever was put where."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from experiments.report.data import report_data
from recast_core.errors import RecastError

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
