"""``recast plan --budget``: what fits, in the order that was measured."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.command import plan_budget as module
from experiments.command.cli import main
from experiments.command.plan import update_bytes
from experiments.command.plan_budget import choose_study, plan_budget, update_length, widest
from experiments.report.results import Result, load_results, save_results
from recast_core.backbones import load_backbone
from recast_core.config import RecastConfig
from recast_core.errors import RecastError
from recast_core.mimicry import mimic
from recast_core.task_spec import parse_task

BASE = Result(
    "shifts", "glyph_resnet20", "batch-norm", 269_072, "digits+fog:3", 10, -1, "recast", "shifts",
    "backbone", 5, 48, 51, 3, 0.7, 0.69, 0.71, 0.5, "weather",
)  # fmt: skip
BACKBONE = "glyph_resnet20"


def _with(method: str, bank: str, accuracy: float, **other: Any) -> Result:
    return replace(BASE, method=method, bank=bank, accuracy=accuracy, **other)


STAND_IN = (
    BASE,
    replace(BASE, task="digits+gauss:3", accuracy=0.8),
    _with("recast", "own", 0.52, bits=8),
    _with("head-only", "", 0.45, head="local", bits=8, update_bytes=0),
    _with("head-only", "", 0.5, statistics="recompute", bits=8, update_bytes=0),
    _with("norm-affine", "", 0.61, bits=1),
    _with("norm-affine", "", 0.62, bits=8),
    _with("lora:4:conv", "", 0.6, bits=8),
    _with("full", "", 0.74, bits=8),
    _with("full", "", 0.51, bits=8, labels=64),
    replace(BASE, accuracy=0.65, labels=64),
    replace(BASE, kind="layer-norm", parameters=1, backbone="vit", accuracy=0.9),
)


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    save_results(tmp_path / "results.json", STAND_IN)
    return tmp_path / "results.json"


def _order(report: dict[str, Any]) -> list[str]:
    return [row["method"] for row in report["methods"]]


def _call(*arguments: str) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recast", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
    return stopped.value.code


def test_what_fits_comes_best_first_and_what_was_not_measured_last(stand_in: Path) -> None:
    report = plan_budget(BACKBONE, 51, results=stand_in)
    measured = ["shift bank", "own weights, conv", "statistics recomputed", "local head"]
    assert _order(report)[:4] == measured
    assert all(row["gain"] is None for row in report["methods"][4:])
    best = report["methods"][0]
    assert (best["numbers"], best["bits"], best["update_bytes"]) == (48, 4, 47)
    assert best["gain"] == pytest.approx(0.25)
    assert best["accuracy"] == pytest.approx(0.75)
    assert best["tasks"] == 2
    assert all(row["update_bytes"] <= 51 for row in report["methods"])
    assert report["measured"]["study"] == "shifts"
    assert report["measured"]["same_backbone"] is True
    assert report["measured"]["zero_byte_accuracy"] == pytest.approx(0.5)

    large = plan_budget(BACKBONE, 10**6, results=stand_in)
    assert _order(large)[:3] == ["shift bank", "whole model (FedAvg)", "norm affine"]
    unmeasured = [row["method"] for row in large["methods"] if row["gain"] is None]
    assert unmeasured == _order(large)[-len(unmeasured) :]
    assert "LoRA r1" in unmeasured
    assert "LoRA r4" not in unmeasured


def test_an_accuracy_over_some_of_the_tasks_says_of_how_many(
    stand_in: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_budget(BACKBONE, 0, results=stand_in)
    lines = capsys.readouterr().out.splitlines()
    assert any("local head" in line and "45.0 %, 1 of 2 tasks" in line for line in lines)
    plan_budget("digits_resnet20", 51)
    assert " of 3 tasks" not in capsys.readouterr().out


def test_zero_bytes_leave_what_sends_nothing(stand_in: Path) -> None:
    report = plan_budget(BACKBONE, 0, results=stand_in)
    assert _order(report) == ["statistics recomputed", "local head"]
    assert {row["update_bytes"] for row in report["methods"]} == {0}


def test_the_nearest_width_that_was_measured_counts_and_is_named(
    stand_in: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = plan_budget(BACKBONE, 400, results=stand_in)
    (row,) = (row for row in report["methods"] if row["method"] == "norm affine")
    assert (row["bits"], row["measured_bits"]) == (2, 1)
    # As the studies measured widths below 4 bits.
    assert row["run"] == "--method norm-affine --bits 2 --error-feedback"
    assert row["accuracy"] == pytest.approx(0.61)
    out = capsys.readouterr().out
    assert "+11.0 at 1 bits" in out
    assert "over the best that sends nothing there, listed here or not (50.0 %)" in out
    assert "not measured" not in out.splitlines()[3]


@pytest.mark.parametrize(("asked", "taken"), [(-1, -1), (64, 64), (100, 64), (10**6, -1)])
def test_the_nearest_label_budget_counts(asked: int, taken: int) -> None:
    found = choose_study(STAND_IN, "batch-norm", 269_072, asked)
    assert {row.labels for row in found.rows} == {taken}


def test_another_backbone_of_the_kind_is_used_and_said_and_of_no_kind_nothing(
    stand_in: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert choose_study(STAND_IN, "batch-norm", 5, -1).same is False
    assert choose_study(STAND_IN, "layer-norm", 5, -1).rows[0].backbone == "vit"
    assert choose_study(STAND_IN, "other", 5, -1).rows == ()
    save_results(stand_in, [row for row in STAND_IN if row.kind == "layer-norm"])
    report = plan_budget(BACKBONE, 51, results=stand_in)
    assert report["measured"] is None
    assert all(row["gain"] is None for row in report["methods"])
    out = capsys.readouterr().out
    assert "nothing was measured" in out
    assert out.count("not measured") == len(report["methods"])


def test_a_study_with_a_bank_of_shifts_comes_before_a_larger_one() -> None:
    others = [replace(row, study="old", bank="") for row in STAND_IN * 3]
    assert choose_study([*others, *STAND_IN], "batch-norm", 269_072, -1).rows[0].study == "shifts"


def test_of_other_backbones_of_the_kind_the_nearest_in_size_counts() -> None:
    large = [replace(BASE, backbone="large", parameters=20_000_000)]
    found = choose_study([*STAND_IN, *large], "batch-norm", 11_000_000, -1)
    assert (found.rows[0].backbone, found.same) == ("large", False)
    found = choose_study([*large, *STAND_IN], "batch-norm", 100_000, -1)
    assert found.rows[0].backbone == BACKBONE


def test_the_very_network_comes_before_another_of_its_size_with_a_bank_of_shifts(
    stand_in: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = _with("recast", "own", 0.6, bits=8, study="mine", backbone="mine")
    rows = [replace(row, backbone="cifar_resnet20") for row in STAND_IN]
    found = choose_study([*rows, own], "batch-norm", 269_072, -1, "mine")
    assert (found.rows, found.same, found.named) == ((own,), True, True)
    found = choose_study([*rows, own], "batch-norm", 269_072, -1, "another")
    assert (found.rows[0].backbone, found.same, found.named) == ("cifar_resnet20", True, False)
    # A name that is not of this size says nothing.
    assert choose_study([*rows, own], "batch-norm", 5, -1, "mine").named is False

    save_results(stand_in, rows)
    report = plan_budget(BACKBONE, 51, results=stand_in)
    assert report["measured"]["this_backbone"] is False
    assert report["measured"]["data"] == ["digits+fog:3", "digits+gauss:3"]
    said = " ".join(capsys.readouterr().out.split())
    assert "cifar_resnet20 (of this size and kind, maybe with other weights): digits+fog:3" in said
    save_results(stand_in, STAND_IN)
    plan_budget(BACKBONE, 51, results=stand_in)
    assert f"{BACKBONE} itself: digits+fog:3" in " ".join(capsys.readouterr().out.split())


def test_the_packaged_bank_is_named_and_own_weights_do_without_it() -> None:
    options = {row["method"]: row["run"] for row in plan_budget("digits_resnet20", 51)["methods"]}
    assert options["shift bank"] == "--bank digits_resnet20 --head backbone --bits 4"
    assert options["own weights, conv"] == "--bank none --target conv --bits 8"


def test_lengths_are_those_of_real_updates() -> None:
    bank = mimic(load_backbone(BACKBONE).model, RecastConfig(target="conv"))
    for bits in (8, 5, 1):
        assert update_length(bank.sent, bits) == update_bytes(bank, bits)
    assert widest(48, 51) == 5
    # A task's first update may name where it started, and is then two bytes longer.
    assert update_length(48, 5, starts=True) == update_length(48, 5) + 2 == 53
    assert widest(48, 51, starts=True) == 4
    assert widest(48, update_length(48, 1) - 1) is None
    for numbers in (1, 24, 10_000):
        for budget in (30, 300, 3000):
            bits = widest(numbers, budget)
            if bits is not None and bits < 8:
                assert update_length(numbers, bits) <= budget < update_length(numbers, bits + 1)


def test_the_packages_results_can_be_read_and_are_consistent() -> None:
    rows = load_results()
    assert rows
    cells: dict[tuple[object, ...], set[float]] = {}
    for row in rows:
        assert row.lowest <= row.accuracy <= row.highest
        assert (row.update_bytes == 0) == (row.method == "head-only")
        parse_task(row.task)
        cell = (row.study, row.backbone, row.task, row.labels)
        cells.setdefault(cell, set()).add(row.zero_byte_accuracy)
    assert all(len(found) == 1 for found in cells.values())
    assert np.isfinite([row.gain for row in rows]).all()


def test_docs_and_package_have_one_file() -> None:
    root = Path(__file__).parents[3]
    linked, own = root / "docs/results/results.json", root / "experiments/report/results.json"
    assert linked.resolve() == own.resolve()


def test_results_read_back_and_further_keys_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    save_results(path, STAND_IN)
    assert load_results(path) == STAND_IN
    row = asdict(BASE) | {"note": "kept"}
    del row["held_out"]
    path.write_text(json.dumps({"format": 1, "rows": [row]}))
    assert load_results(path) == (replace(BASE, held_out=""),)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"format": 2, "rows": []}', '{"format": 1, "rows": [{}]}',
        json.dumps({"format": 1, "rows": [asdict(BASE) | {"accuracy": "high"}]}),
        json.dumps({"format": 1, "rows": [asdict(BASE) | {"accuracy": 70.0}]}),
        json.dumps({"format": 1, "rows": [asdict(BASE) | {"kind": "group-norm"}]}),
        json.dumps({"format": 1, "rows": [asdict(BASE) | {"bits": True}]}),
    ],
)  # fmt: skip
def test_results_of_another_form_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(RecastError, match=r"\A[^\n]*r\.json[^\n]*\Z"):
        load_results(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--budget", "-1"], "give the bytes"),
        (["--budget", "51", "--labels", "-2"], "-1 for all"),
        (["--budget", "51", "--target", "conv"], "leave it out"),
        (["--labels", "64"], "go with --budget"),
        (["--budget", "51", "--results", "/none.json"], "/none.json"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _call("plan", BACKBONE, *arguments) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line


def test_json_of_a_budget(stand_in: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    arguments = ["--budget", "51", "--results", str(stand_in), "--json", str(path)]
    assert _call("plan", BACKBONE, *arguments) == 0
    report = json.loads(path.read_text())
    assert report.keys() == {"budget", "labels", "measured", "methods"}
    assert report["methods"][0].keys() == {
        "method", "numbers", "bits", "update_bytes", "run", "gain", "accuracy", "tasks",
        "measured_bits",
    }  # fmt: skip
    assert report["methods"][0]["numbers"] == module.SHIFT_BANK
