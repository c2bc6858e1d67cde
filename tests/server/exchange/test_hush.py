"""What a peer can write into the log is bounded, and what was left out is told."""

from __future__ import annotations

import logging

import pytest

from server.exchange.hush import KNOWN, Hush


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_one_cause_writes_a_few_lines_and_then_how_many_it_would_have(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    hush = Hush(logging.getLogger("test.hush"), clock)
    with caplog.at_level(logging.INFO, "test.hush"):
        for number in range(1000):
            hush.log(logging.WARNING, "evil", "line %d", number)
        assert len(caplog.messages) == 12
        hush.log(logging.WARNING, "honest", "hello")
        assert caplog.messages[-1] == "hello"
        clock.now += 5
        hush.log(logging.WARNING, "evil", "line %d", 1000)
        assert caplog.messages[-1] == "line 1000 (and 988 lines more before it)"


def test_all_causes_together_write_five_lines_a_second_in_the_long_run(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    hush = Hush(logging.getLogger("test.hush"), clock)
    with caplog.at_level(logging.INFO, "test.hush"):
        for number in range(20_000):
            clock.now += 0.005
            hush.log(logging.WARNING, f"peer {number % 5000}", "line")
    assert len(caplog.messages) <= 60 + 5 * 100 + 1
    assert len(hush._causes) <= KNOWN
