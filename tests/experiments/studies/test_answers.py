"""The study of answers: one column for each, and label mixes that are the clients' own."""

from __future__ import annotations

import pytest

from experiments.studies.answers import ANSWERS, main


def test_every_answer_has_its_column_and_the_mean_is_that_of_the_cells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.studies.answers._PASSES", 6)
    main(
        [
            "--tasks",
            "fog=digits[92%:]@0-9+fog:2",
            "--clients",
            "3",
            "--seeds",
            "0",
            "--alone",
            "0.5",
            "1",
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [row[2] for row in rows] == 2 * ["nothing", "together", "alone at 0.2", "alone at 0.4"]
    assert all(len(row) == 3 + len(ANSWERS) for row in rows)
    assert [row[3:] for row in rows[:4]] == [row[3:] for row in rows[4:]]
    assert all(0 < float(cell) <= 100 for row in rows for cell in row[3:])
