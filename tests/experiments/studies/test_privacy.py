"""The study of privacy runs, and its attacks find what noise takes away."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.studies.privacy import main
from experiments.studies.update_attacks import Victim, area, chance_of_presence, presence


def test_the_quick_form_prints_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(rows) == 6
    assert "'epsilon': None" in rows[0]
    assert "'epsilon': 0.99" in rows[1]
    assert "'took part': 1.0" in rows[2]


def test_areas_are_those_of_the_rank_test() -> None:
    assert area(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert area(np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])) == pytest.approx(6 / 9)
    assert area(np.ones(4), np.ones(3)) == 0.5


def test_who_took_part_is_told_as_well_as_theory_allows() -> None:
    random = np.random.default_rng(0)
    victims = [Victim(3 * random.standard_normal(48), None, np.zeros(2)) for _ in range(30)]  # type: ignore[arg-type]
    for noise in (0.5, 2.0, 7.5):
        assert presence(victims, 1.0, noise) == pytest.approx(chance_of_presence(noise), abs=0.05)
    assert presence(victims, 1.0, 0.0) == 1.0
