"""The closing table speaks of what was measured, and of a bank where there is one."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.command.console import print_summary, size_text


def closing(capsys: pytest.CaptureFixture[str], tasks: int, **changed: Any) -> str:
    task = {
        "name": "a", "clients": 2, "rounds": 3, "accuracy": 0.5, "head_only_accuracy": 0.25,
        "median_accuracy": 0.75, "update_bytes": 74664, "message_bytes_up": 2000,
        "message_bytes_down": 4000,
    }  # fmt: skip
    bank = {"templates": changed.pop("templates", 6), "coefficients": 74640}
    report = {
        "bank": bank, "tasks": [task | changed] * tasks, "forgetting": {"max_abs_change": 0.125},
        "round_seconds": 1.0, "seconds": 3.0,
    }  # fmt: skip
    print_summary(report, 10**6, "5 B to all clients, once")
    return capsys.readouterr().out


def test_what_was_measured_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    told = closing(capsys, 2)
    assert "accuracies are over all test images" in told
    assert "74,664 B" in told
    assert "bank: 6 templates, 74,640 coefficients sent, 5 B to all clients, once" in told
    assert "forgetting: 12.5 points at most" in told


def test_nothing_is_said_of_accuracies_that_nobody_told(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = dict.fromkeys(("accuracy", "head_only_accuracy", "median_accuracy"))
    told = closing(capsys, 2, **nothing)
    assert "accuracies are" not in told
    assert "no accuracy: no client told of any" in told
    assert "forgetting" not in told


def test_one_task_forgets_nothing_and_a_method_without_a_bank_has_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = closing(capsys, 1, templates=0)
    assert "forgetting" not in told
    assert "no bank: 74,640 numbers sent | 1.00 s a round" in told


@pytest.mark.parametrize(("count", "said"), [(42_000, "42.0 kB"), (6_400_000, "6.4 MB")])
def test_a_small_network_is_not_nothing(count: int, said: str) -> None:
    assert size_text(count) == said
