"""A study's command ends with one line where it cannot go on."""

from __future__ import annotations

import pytest

from experiments.studies import paper
from experiments.studies.one_line import in_one_line
from recast_core.errors import RecastError


@pytest.mark.parametrize(
    ("stopped", "code", "said"),
    [
        (RecastError("no variant: choose one"), 2, "no variant: choose one"),
        (FileNotFoundError(2, "no such file", "rows.jsonl"), 2, "rows.jsonl (no such file): name"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_stops_a_study_is_one_line(
    capsys: pytest.CaptureFixture[str], stopped: BaseException, code: int, said: str
) -> None:
    def main() -> None:
        raise stopped

    with pytest.raises(SystemExit) as ended:
        in_one_line(main)
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_an_unknown_variant_is_named_apart_from_names_that_have_commas() -> None:
    with pytest.raises(RecastError, match="no variant birds: choose from linear head, vit; recast"):
        paper.main(["--only", "birds", "--rows", "rows.jsonl"])
