"""A node that says in each round that it lacks the bank is sent it twice, and then seldom."""

from __future__ import annotations

from server.exchange.deliveries import FIRST_PAUSE, Deliveries


def test_a_bank_may_be_lost_once_and_then_at_ever_longer_intervals() -> None:
    now = [0.0]
    deliveries = Deliveries(lambda: now[0])
    sent, times = 0, []
    for second in range(40_000):
        now[0] = float(second)
        if deliveries.barred(7):
            continue
        if not deliveries.pause(7):
            deliveries.stored(7)
            sent += 1
            times.append(second)
    assert times[:2] == [0, 1]
    assert times[2] >= FIRST_PAUSE
    assert times[3] - times[2] >= 4 * FIRST_PAUSE
    assert sent <= 5
    assert deliveries.pause(8) == 0
    assert not deliveries.barred(8)


def test_whoever_has_not_confirmed_yet_is_not_kept_waiting() -> None:
    deliveries = Deliveries(lambda: 0.0)
    assert [deliveries.pause(7) for _ in range(10)] == [0.0] * 10
