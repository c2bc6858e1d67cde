"""The study of attacks on the link runs against real processes, and tells what it has seen."""

from __future__ import annotations

from experiments.studies.link_attacks import HEAD, Row, Times, measure
from experiments.studies.link_costs import cost
from experiments.studies.link_foes import FOES


def test_the_short_form_attacks_a_federation_that_goes_on() -> None:
    # Who is late because the machine has much else to do has missed no round.
    times = Times(stretch=1.5, cycles=1, settle=0.3, warm=5)
    row = measure("garbage", times, ["--max-lag", "0"])
    assert row.rate > 0
    assert row.kept > 0
    assert row.missed == 0
    assert row.log < 4000
    assert row.memory[2] < 1.15 * row.memory[0]
    assert str(row).count("|") == HEAD.splitlines()[0].count("|")


def test_ten_ways_and_one_that_is_none() -> None:
    assert len(FOES) == 12
    assert "nothing" in FOES


def test_a_row_passes_where_every_limit_holds() -> None:
    fine = Row("x", 5.0, 0.9, 0.3, (100, 110), 0, 1.0, (500, 520, 510), 400)
    assert fine.passes
    assert not Row("x", 5.0, 0.6, 0.3, (100, 110), 0, 1.0, (500, 520, 510), 400).passes
    assert not Row("x", 5.0, 0.9, 0.3, (100, 110), 0, None, (500, 520, 510), 400).passes
    assert not Row("x", 5.0, 0.9, 0.3, (100, 110), 0, 1.0, (500, 620, 610), 400).passes


def test_what_a_rapid_reset_costs_a_server_is_little_of_what_it_costs_the_attacker() -> None:
    theirs, ours = cost("rapid-reset", 4.0)
    assert theirs > 0.1
    assert ours < 0.6 * theirs
