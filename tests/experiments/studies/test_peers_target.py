"""Time until an accuracy: each system by its best, and no accuracy that is lost again at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.studies.peers_client import Case, write
from experiments.studies.peers_target import reached, table


def row(system: str, passes: int, seconds: list[float], curve: list[float]) -> dict[str, object]:
    told = {"system": system, "clients": 100, "passes": passes, "rate": 0.4}
    return {**told, "rounds": seconds, "curve": curve}


def test_it_is_reached_where_the_next_round_does_not_lose_it_again() -> None:
    one = row("folded", 1, [2.0, 1.0, 1.0, 1.0], [0.5, 0.7, 0.6, 0.7])
    assert reached(one, 0.5) == (1, 2.0)
    assert reached(one, 0.6) == (2, 3.0)
    assert reached(one, 0.65) == (4, 5.0)
    assert reached(one, 0.8) is None


def test_each_system_is_judged_by_the_passes_that_suit_it_best() -> None:
    rows = [
        row("folded", 1, [1.0, 1.0, 1.0], [0.5, 0.6, 0.7]),
        row("folded", 2, [2.0, 2.0], [0.7, 0.7]),
        row("pfl-plain", 1, [0.5, 0.5, 0.5], [0.5, 0.6, 0.7]),
        row("pfl-plain", 2, [9.0], [0.9]),
    ]
    said = table(rows, [0.7, 0.95])
    assert "| 100 | 70 | recast, folded | 2 | 0.4 | 1 | 2.00 | 1.00 |" in said
    assert "| 100 | 70 | pfl, two workers, plain PyTorch loop | 1 | 0.4 | 3 | 1.50 | 0.75 |" in said
    assert "| 100 | 95 | recast, folded | never | | | | |" in said


def test_no_client_has_an_image_that_rounds_are_judged_by(tmp_path: Path) -> None:
    case = Case(8, False, 1, tmp_path, watched=True)
    write(case)
    with np.load(case.path) as held:
        aside = {image.tobytes() for image in held["x_watch"]}
        own = {image.tobytes() for image in held["x_train"]}
        tests = {image.tobytes() for image in held["x_test"]}
    assert len(aside) > 100
    assert not aside & own
    assert not aside & tests
