"""The study of shifts runs, stops, goes on where it stopped, and trains as the product does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.report.results import load_results
from experiments.studies import shift_table, shifts
from experiments.studies.shift_cell import best_rate
from experiments.studies.shift_contenders import (
    BY_NAME,
    CONTENDERS,
    PHASES,
    Key,
    cells_in_order,
    in_order,
)
from experiments.studies.shift_fleet import Share, deal
from experiments.studies.shift_judge import with_statistics
from experiments.studies.shift_lanes import Lanes
from experiments.studies.shift_rounds import Terms, federate
from experiments.studies.shift_site import Site, SitePlan
from recast_core.backbones import load_backbone
from recast_core.errors import RecastError
from recast_core.shifts.table import parse_shift
from recast_core.sources.source_networks import SourceNetwork

PLAN = SitePlan(epochs=8, rate=3e-3, sources=4, source_epochs=2, source_rate=1e-3, sections=3,
                directions=3, rank=8, images=160)  # fmt: skip
COMPARED = ("coefficients", "FedAvg", "norm affine")


class Silent:
    """Watches nothing."""

    def source(self, done: int, of: int, made: SourceNetwork, kept: bool) -> None:
        """See ``Watcher``."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the networks of this module are made once."""
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def site(kept: Path) -> Site:
    return Site("glyph_resnet20", "digits", PLAN, torch.device("cpu"), kept)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(rows: Path, kept: Path, *more: str) -> None:
    shifts.main(["--quick", "--device", "cpu", "--rows", str(rows), "--keep", str(kept), *more])


def test_a_study_goes_on_where_it_stopped_and_its_rows_make_tables_and_results(
    site: Site, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    run(rows, kept, "--budget", "0")
    assert "run it again" in capsys.readouterr().out
    assert not rows.exists() or not any("accuracy" in row for row in rows_of(rows))
    run(rows, kept)
    first = rows_of(rows)
    keys = [(r["contender"], r["labels"], r["seed"]) for r in first if "accuracy" in r]
    assert len(set(keys)) == len(keys)
    assert {(name, labels, 0) for name in COMPARED for labels in (-1, 64)} <= set(keys)
    # What was cut off in the middle of a line is made anew, and nothing else.
    rows.write_text(rows.read_text()[:-30])
    run(rows, kept)
    assert len(rows_of(rows)) == len(first)
    by = {(r["contender"], r["labels"]): r for r in first if "accuracy" in r}
    few, many = by["coefficients", -1], by["FedAvg", -1]
    assert few["update_bytes"] < 100 < 4 * many["numbers"] <= many["update_bytes"]
    assert by["alone, everything", -1]["up"] == by["statistics", -1]["update_bytes"] == 0

    page, plot, results = (tmp_path / name for name in ("p.md", "p.svg", "r.json"))
    shift_table.main([str(rows), "--page", str(page), "--plot", str(plot), "--results",
                      str(results)])  # fmt: skip
    assert "**coefficients**" in page.read_text()
    assert plot.read_text().count("<circle") > 3
    found = load_results(results)
    assert {row.method for row in found} >= {"recast", "full", "norm-affine"}
    assert {row.bank for row in found if row.method == "recast"} == {"shifts"}


def test_one_client_after_another_trains_as_the_folded_engine_does(site: Site) -> None:
    bank, used = site.bank(site.sources(Silent()), "light", 8)
    assert used == 4
    domain = site.domain(parse_shift("lowlight:4"))
    terms = Terms(rounds=2, epochs=1, batch=16, rate=0.2)
    shares: list[Share] = []
    found = []
    for make in (site.folded(bank), site.captured_bank(bank, terms.batch)):
        make.hold(domain)
        # Frozen statistics: with its own a captured client repeats images to fill its batches.
        shares = shares or deal(domain, 3, 1.0, 0, -1)
        found.append(federate(make, shares, terms, 0))
    assert torch.allclose(found[0].vectors[0], found[1].vectors[0], atol=1e-4)
    assert found[0].vectors[0].abs().max() > 0.05
    assert (found[0].up, found[0].down) == (found[1].up, found[1].down)
    free = []
    for make in (site.folded(bank), site.captured_bank(bank, terms.batch)):
        make.hold(domain)
        without = replace(terms, label_free=True)
        free.append(federate(make, shares, without, 0))
    # To what a number that is rounded the other way moves the mean by.
    assert torch.allclose(free[0].vectors[0], free[1].vectors[0], atol=2e-3)
    assert not torch.allclose(free[0].vectors[0], found[0].vectors[0], atol=1e-2)
    # A first round that listens is small: no coefficients go up in it.
    assert free[0].up < found[0].up


def test_on_a_cpu_a_client_by_its_own_statistics_trains_as_in_the_folded_engine(
    site: Site,
) -> None:
    bank, _ = site.bank(site.sources(Silent()), "light", 8)
    domain = site.domain(parse_shift("lowlight:4"))
    terms = Terms(rounds=2, epochs=1, batch=16, rate=0.2)
    found = []
    for make in (site.folded(bank), site.captured_bank(bank, terms.batch)):
        make.hold(domain)
        # Few labels, so that images without one fill the batches up.
        shares = [replace(s, local=True) for s in deal(domain, 3, 1.0, 0, 24)]
        found.append(federate(make, shares, terms, 0).vectors[0])
    assert torch.allclose(found[0], found[1], atol=2e-3)
    assert found[0].abs().max() > 0.05


def test_a_network_is_deployed_as_it_is_and_products_may_be_bfloat16_on_a_cpu(
    tmp_path: Path,
) -> None:
    plan = replace(PLAN, epochs=0, half=True)
    site = Site("digits_resnet20", "digits", plan, torch.device("cpu"), tmp_path)
    theirs = load_backbone("digits_resnet20").model.state_dict()
    assert all(torch.equal(theirs[name], mine) for name, mine in site.model.state_dict().items())
    assert min(site.clean, site.seen) > 0.9
    assert not (tmp_path / "deployed.safetensors").exists()
    domain = site.domain(parse_shift("lowlight:4"))
    shares = deal(domain, 3, 1.0, 0, -1)
    found = []
    for each in (site, Site("digits_resnet20", "digits", replace(plan, half=False),
                            torch.device("cpu"), tmp_path)):  # fmt: skip
        learner = each.captured("norm-affine", 16)
        learner.hold(domain)
        terms = Terms(rounds=2, epochs=1, batch=16, rate=1e-2)
        found.append(federate(learner, shares, terms, 0).vectors[0])
    # The same, to what products of 8 bits can do to AdamW's steps.
    assert not torch.equal(found[0], found[1])
    assert torch.cosine_similarity(found[0], found[1], dim=0) > 0.8
    with pytest.raises(RecastError, match="769 classes apart and digits has 10"):
        Site("glyph_resnet20", "digits", plan, torch.device("cpu"), tmp_path)


def test_a_client_takes_its_own_statistics_where_the_products_rule_says_so(site: Site) -> None:
    learner = site.captured("norm-affine", 16)
    for shift, wanted in (("lowlight:5", True), ("bright:1", False)):
        domain = site.domain(parse_shift(shift))
        learner.hold(domain)
        shares = with_statistics(learner, deal(domain, 1, 1.0, 0, -1))
        assert [share.local for share in shares] == [wanted]


def test_validation_judges_by_training_images_that_are_not_learned_from(site: Site) -> None:
    domain = site.domain(parse_shift("fog:2"))
    shares = deal(domain, 3, 1.0, 0, 32, validate=True)
    learned = torch.cat([share.every for share in shares])
    judged = torch.cat([share.judge for share in shares])
    assert int(judged.max()) < len(domain.learn)
    assert not set(learned.tolist()) & set(judged.tolist())
    assert sorted([*learned.tolist(), *judged.tolist()]) == list(range(len(domain.learn)))
    assert 0 < sum(len(share.labels) for share in shares) <= 32


def test_every_row_is_made_once_and_what_matters_most_first() -> None:
    keys = [key for phase in PHASES for key in in_order(phase, 3)]
    assert len(set(keys)) == len(keys)
    wanted = {(each.name, labels) for each in CONTENDERS for labels in each.budgets}
    assert {(key.contender, key.labels) for key in keys} == wanted
    leading = {key.contender for key in in_order(0, 1)}
    assert leading > set(COMPARED)
    assert sum(BY_NAME[key.contender].central for key in keys) == 1
    cells = cells_in_order(4)
    assert cells[:3] == [(0, 0), (0, 1), (0, 2)]
    assert sorted(cells) == [(phase, cell) for phase in PHASES for cell in range(4)]
    assert Key("coefficients", -1, 0) == next(k for k in keys if k.contender == "coefficients")


def test_results_compare_methods_over_the_same_cells() -> None:
    def row(accuracy: float) -> dict[str, Any]:
        return {"accuracy": accuracy, "kind": "batch-norm", "parameters": 1, "clients": 10,
                "bits": 8, "numbers": 2, "update_bytes": 20, "family": "light"}  # fmt: skip

    whole: dict[tuple[str, int], list[dict[str, Any]]] = {
        (name, 64): [row(0.5)] for name in COMPARED
    }
    whole["statistics", -1] = [row(0.3)]
    local = {**whole, ("own weights", 64): [row(0.9)], ("local head", 64): [row(0.4)]}
    unfinished = {("coefficients", 64): [row(0.1)], ("statistics", -1): [row(0.3)]}
    cells = {
        ("small", "photos", "fog:4"): local,
        ("small", "photos", "gauss:4"): whole,
        ("small", "photos", "motion:4"): unfinished,
    }
    found = shift_table.results(cells)
    assert {(r.method, r.bank) for r in found} == {
        ("recast", "shifts"), ("full", ""), ("norm-affine", ""), ("head-only", "")
    }  # fmt: skip
    assert sorted({r.zero_byte_accuracy for r in found}) == [0.3, 0.4]
    del cells["small", "photos", "gauss:4"]
    assert "own" in {r.bank for r in shift_table.results(cells)}


def test_a_label_budget_that_is_no_number_is_said() -> None:
    with pytest.raises(SystemExit, match="--labels many: give numbers"):
        shifts.main(["--labels", "many"])


def test_a_rate_at_an_end_of_its_grid_is_followed_beyond_it_as_far_as_is_allowed() -> None:
    asked: list[float] = []

    def lower_is_better(rate: float) -> float:
        asked.append(rate)
        return -abs(rate - 2e-5)

    grid = (2e-4, 6e-4, 2e-3)
    assert best_rate(grid, lower_is_better, 0)[0] == 2e-4
    asked.clear()
    best, found = best_rate(grid, lower_is_better, 2)
    assert best == pytest.approx(2.22e-5)
    assert asked == [*grid, 6.67e-5, 2.22e-5]
    assert sorted(found) == sorted(asked)
    assert best_rate(grid, lambda rate: rate, 1)[0] == pytest.approx(6e-3)
    assert best_rate(grid, lambda rate: -abs(rate - 6e-4), 2)[0] == 6e-4


@pytest.mark.parametrize("method", ["norm-affine", "bank"])
def test_what_a_client_learns_does_not_depend_on_who_trains_beside_it(
    site: Site, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain, terms = site.domain(parse_shift("lowlight:4")), Terms(1, 1, 16, 1e-2)
    found = []
    for lanes in (1, 3):
        monkeypatch.setattr(site, "plan", replace(site.plan, lanes=lanes))
        bank = site.own_bank()
        made = site.captured_bank(bank, 16) if method == "bank" else site.captured(method, 16)
        made.hold(domain)
        shares = with_statistics(made, deal(domain, 4, 1.0, 0, -1))
        found.append(federate(made, shares, terms, 0).vectors[0])
    assert torch.equal(*found)
    assert found[0].abs().max() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are captured on a GPU")
def test_gpu_a_second_graph_leaves_the_first_one_its_memory(tmp_path: Path) -> None:
    device = torch.device("cuda")
    site = Site("glyph_resnet20", "digits", PLAN, device, tmp_path)
    learner: Lanes = site.captured("norm-affine", 16)
    make: Callable[[int], list[Share]] = lambda n: deal(domain, n, 1.0, 0, -1)  # noqa: E731
    domain = site.domain(parse_shift("lowlight:4"))
    learner.hold(domain)
    terms = Terms(rounds=1, epochs=1, batch=16, rate=1e-3)
    before = federate(learner, with_statistics(learner, make(2)), terms, 0).vectors[0]
    federate(learner, make(2), terms, 0)
    filler = [torch.zeros(1 << 16, device=device) for _ in range(64)]
    after = federate(learner, with_statistics(learner, make(2)), terms, 0).vectors[0]
    assert torch.allclose(before, after, atol=1e-4)
    assert not any(bool(tensor.any()) for tensor in filler)
