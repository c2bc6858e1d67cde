"""What a run is given and does not use is said in a line, and nothing is said of what counts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.idle import idle_settings
from server.prepare import make_start

KEPT: dict[str, Any] = {"backbone": Settings.backbone, "target": "conv", "tasks": "digits"}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"method": "full", "groups": 2}, "--target, --groups have no effect: method full"),
        ({"method": "lora:2", "sets": 2}, "--sets has no effect: method lora:2"),
        (KEPT | {"templates": 3}, "--templates has no effect: the bank is read"),
        (
            {"method": "head-only", "target": "conv", "bits": 4, "dp_epsilon": 1.0},
            "--bits, --dp-epsilon have no effect: method head-only sends no numbers",
        ),
        ({"method": "head-only", "target": "conv", "secure_aggregation": True}, "--secure-agg"),
        ({"secure_aggregation": True, "rounding": "stochastic"}, "--rounding has no effect: h"),
        ({"bits": 32, "error_feedback": True}, "--error-feedback has no effect: numbers of 32"),
        ({"bits": 16, "rounding": "stochastic"}, "--rounding has no effect: numbers of 16"),
        ({"begin": "bank"}, "--begin has no effect: no task keeps"),
        ({"baseline": False}, "--baseline has no effect: a local head"),
        ({"evaluate_every": 6, "rounds": 6}, "--evaluate-every has no effect"),
        ({"parallel_tasks": 3}, "--parallel-tasks has no effect: of the run's tasks there are 2"),
        ({"dp_epsilon": 1.0, "dp_sampling": "poisson"}, "--dp-sampling has no effect"),
        ({"dp_epsilon": 1.0}, "the mean of updates is taken, not --aggregation clipped: there is"),
        ({"secure_aggregation": True}, "the mean of updates is taken, not --aggregation clipped"),
    ],
)  # fmt: skip
def test_a_setting_that_does_nothing_is_named(
    tiny: Callable[..., Settings], given: dict[str, Any], line: str
) -> None:
    settings = tiny(**given)
    assert any(found.startswith(line) for found in idle_settings(settings, make_start(settings)))


@pytest.mark.parametrize(
    "given",
    [
        {"residual": True, "bits": 4, "rounding": "stochastic", "error_feedback": True},
        {"bits": 16, "error_feedback": True, "clients_per_round": 1},
        {"method": "lora:2", "bits": 4},
        {"head": "ridge", "baseline": False},
        {"parallel_tasks": 2, "evaluate_every": 1, "rounds": 2},
        {"parallel_tasks": 9, "keep_running": True},
        {"dp_epsilon": 1.0, "dp": "local", "aggregation": "median"},
        {"secure_aggregation": True, "aggregation": "mean", "bits": 4, "clip": "0.5"},
        {"dp_epsilon": 1.0, "aggregation": "mean", "dp_sampling": "poisson",
         "clients_per_round": 1},
        KEPT | {"begin": "bank", "statistics": "recompute"},
        KEPT | {"bank": "none", "residual": True, "statistics": "frozen"},
    ],
)  # fmt: skip
def test_nothing_is_said_of_settings_that_count(
    tiny: Callable[..., Settings], given: dict[str, Any]
) -> None:
    settings = tiny(**given)
    assert idle_settings(settings, make_start(settings)) == []


@pytest.mark.parametrize(
    ("given", "said"), [({"tasks": "other=npz:other.npz"}, True), ({"tasks": "digits"}, False),
                        ({"tasks": "digits", "head": "local"}, False),
                        ({"tasks": "other=npz:other.npz", "bank": "none"}, False)],
)  # fmt: skip
def test_a_bank_of_shifts_without_its_classifier_is_said_unless_a_head_was_asked_for(
    given: dict[str, Any], said: bool
) -> None:
    settings = Settings(**({"bank": Settings.backbone, "target": "conv"} | given))
    lines = idle_settings(settings, make_start(settings))
    assert any("--head backbone keeps the deployed classifier" in line for line in lines) == said


def test_a_run_says_it_before_anybody_is_asked(
    tiny: Callable[..., Settings],
    federation: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    grid = federation(nodes=0).grid
    with caplog.at_level(logging.WARNING), pytest.raises(RecastError):
        run_federation(
            grid,
            tiny(begin="bank"),
            tmp_path / "run",
            LogObserver(),
            conditions=Conditions(patience=0.0),
        )
    assert caplog.text.count("--begin has no effect") == 1
