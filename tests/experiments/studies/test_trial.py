"""Trials count what a method needs, and every row of the comparison can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from experiments.studies.bits import rows
from experiments.studies.comparison import compare, variants
from experiments.studies.task_vector_banks import make_bank
from experiments.studies.trial import tasks_of, trial
from recast_core.bank import TemplateBank
from recast_core.settings import Settings
from recast_core.wire.codec import encoded_length

Make = Callable[..., Settings]
CLIENTS = 3


def test_a_methods_bytes_are_its_updates_and_heads_and_not_what_reports_need(tiny: Make) -> None:
    settings = tiny(partition="iid", rounds=2, bits=4)
    quiet, travelling = (
        tasks_of(trial(replace(settings, head=head), CLIENTS))["a"] for head in ("local", "means")
    )
    sent = quiet["coefficients"]
    assert quiet["method_payload_up"] == 2 * encoded_length(sent, 4)
    assert quiet["payload_bytes_up"] == CLIENTS * quiet["method_payload_up"]
    head = travelling["method_payload_up"] - quiet["method_payload_up"]
    # One head on what was learned; the other, on the backbone as it came, is the report's.
    assert 0 < head < travelling["payload_bytes_up"] / CLIENTS - quiet["method_payload_up"]


def test_every_row_of_the_comparison_learns(tiny: Make) -> None:
    settings = tiny(partition="iid", rounds=1, epochs=1)
    base = {k: v for k, v in settings.as_dict().items() if k != "run-dir"}
    names = variants("", settings.target.split(",")[0])
    found = compare(base, names, CLIENTS, [0])
    assert {row["method"] for row in found} == names.keys()
    assert all(0 < row["accuracy"] <= 1 for row in found)
    sizes = {row["method"]: row["message_up"] for row in found if row["task"] == "a"}
    assert sizes["head only, local"] == 0 < sizes["RECAST, own weights, 4 bits"]
    assert sizes["RECAST, own weights, 4 bits"] < sizes["RECAST, own weights"]
    assert sizes["LoRA r1"] < sizes["LoRA r4"] < sizes["full (FedAvg)"]


def test_float32_changes_nothing_and_the_widths_are_compared_with_it(
    tiny: Make,
) -> None:
    settings = tiny(partition="iid", rounds=1, epochs=1)
    base = {k: v for k, v in settings.as_dict().items() if k != "run-dir"}
    exact, half = rows(base, CLIENTS, [0], [16], ["nearest"])
    assert exact["bits"] == 32
    for task, change in half["change"].items():
        assert half["accuracy"][task] - exact["accuracy"][task] == pytest.approx(change[0])


def test_a_task_vector_bank_has_a_coefficient_for_each_donor_and_block(tiny: Make) -> None:
    settings = tiny()
    source = settings.tasks.split()[0].partition("=")[2]
    bank = make_bank(settings.backbone, f"{source} {source}@0-1", settings.target, "model", seed=0)
    assert isinstance(bank, TemplateBank)
    assert bank.sent == 2
    assert bool((bank.initial_vector == 0).all())
    assert any(group.templates.abs().max() > 0 for group in bank.groups)
