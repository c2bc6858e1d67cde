"""The study of floods in short: a real broker, and no answer is lost where nobody floods."""

from __future__ import annotations

import pytest

from experiments.measure import mosquitto
from experiments.studies.mqtt_flood import main


@pytest.mark.skipif(mosquitto.program() is None, reason="no mosquitto on this machine")
def test_answers_are_lost_to_a_flood_alone(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--seconds", "1", "--deadline", "5", "--queues", "100000", "--qos", "1"])
    *_, calm, flooded = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert calm[4].strip().startswith("0 of ")
    assert int(calm[3].replace(",", "")) >= 1
    assert int(flooded[2].replace(",", "")) > 0
