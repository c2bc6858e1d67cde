"""The study of kills in short: real processes, hidden updates, nothing lost and nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_kills_lose_and_change_no_round_of_hidden_sums(
    study: Callable[..., dict[str, Any]],
) -> None:
    found = study(
        "chaos", "--kills", "4", "--clients", "3", "--rounds", "8", "--seconds", "60",
        "--seed", "0", "--", "--secure-aggregation", "--max-lag", "0",
    )  # fmt: skip
    assert found["faults"] == []
    assert found["rounds"] == 8
    assert sum(found["kills"].values()) >= 1
    # A client that was away for too long may have been left out of a round, and later ones differ.
    assert found["equal"] == found["compared"]
