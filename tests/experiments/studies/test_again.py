"""The study of tasks that come again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from client.data import load_dataset
from client.data.arrays import Images
from experiments.studies import again
from recast_core.task_spec import parse_tasks


def test_the_four_tasks_are_what_the_table_says() -> None:
    found = parse_tasks(again.sequence("digits[50%:]", "impulse:4", "motion:4"))
    assert [spec.name for spec in found] == list(again.ORDER)
    kinds = [spec.transforms for spec in found]
    assert kinds[2] == kinds[0] == ("impulse:4",)
    assert kinds[3] == (*kinds[0], *kinds[1])


def test_the_table_has_a_line_for_each_start_and_seed_and_their_means(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(
        tasks: str, begin: str, seed: int, clients: int, rounds: int
    ) -> tuple[dict[str, float], dict[str, float], float]:
        right = 0.5 + 0.1 * seed + (0.2 if begin == "nearest" else 0.0)
        return dict.fromkeys(again.ORDER, right), dict.fromkeys(again.ORDER, 0.4), 0.0

    monkeypatch.setattr(again, "row", row)
    again.main(["--seeds", "0", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert "| nearest | 1 | 80.0 (40.0) | 80.0 (40.0) | 80.0 (40.0) | 80.0 (40.0) | 0 |" in lines
    assert "| bank | mean | **55.0** | **55.0** | **55.0** | **55.0** | |" in lines


def test_validation_judges_by_training_images_that_nobody_learns_from(tmp_path: Path) -> None:
    data = "digits[50%:]"
    [whole], [held] = parse_tasks(data), parse_tasks(again.held_out(data, 0, tmp_path))
    every, found = load_dataset(whole, 16), load_dataset(held, 16)

    def several(images: Images) -> Counter[bytes]:
        return Counter(one.tobytes() for one in images)

    learned, judged = several(found.x_train), several(found.x_test)
    assert learned + judged == several(every.x_train)
    assert len(found.x_test) == pytest.approx(len(every.x_train) / 5, abs=10)
    assert found.classes == every.classes
