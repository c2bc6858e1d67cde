"""The study of kills through a broker in short: no round lost, none changed, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from experiments.measure.mosquitto import program


@pytest.mark.skipif(program() is None, reason="no mosquitto: `apt-get install mosquitto`")
def test_kills_of_broker_server_and_clients_change_no_bit(
    study: Callable[..., dict[str, Any]],
) -> None:
    found = study(
        "chaos_mqtt", "--kills", "9", "--clients", "2", "--rounds", "6", "--seconds", "60",
        "--seed", "0", "--", "--max-lag", "0",
    )  # fmt: skip
    assert found["faults"] == []
    assert found["rounds"] == 6
    assert found["kills"]["broker"] >= 1
    # A client that was away for too long may have been left out of a round, and later ones differ.
    assert found["equal"] == found["compared"] >= 1
