"""What the link costs on the wire, counted as TCP payload by a relay, over TLS."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.experiments.ends import broadcast, update

if TYPE_CHECKING:
    from conftest import Federation

ROUNDS = 10


def test_a_round_of_24_coefficients_over_tls_costs_at_most_260_bytes(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here = federation()
    relay = here.relay()
    here.join(handle=lambda type_, body: update(2), port=relay.port)
    here.grid.wait_for_clients(1)
    assert here.ask(broadcast(1)) == [update(2)]
    up, down = relay.settled()
    seconds = []
    for round_ in range(2, 2 + ROUNDS):
        began = time.monotonic()
        assert here.ask(broadcast(round_)) == [update(2)]
        seconds.append(time.monotonic() - began)
    after_up, after_down = relay.settled()
    up, down = (after_up - up) / ROUNDS, (after_down - down) / ROUNDS
    print(
        f"per round: {up:.1f} B up ({len(update(2))} B body), {down:.1f} B down "
        f"({len(broadcast(9))} B body); round trip {1000 * min(seconds):.1f} to "
        f"{1000 * max(seconds):.1f} ms"
    )
    assert up + down <= 260
    while min(seconds) >= 0.1 and len(seconds) < 500:  # once is enough where others are at work
        began = time.monotonic()
        assert here.ask(broadcast(len(seconds))) == [update(2)]
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 0.1


def test_coming_back_costs_at_most_5_kilobytes_and_resumes_the_tls_session(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here = federation()
    relay = here.relay()
    one = here.join(port=relay.port)
    here.grid.wait_for_clients(1)
    here.ask(b"x")
    first = sum(relay.settled())
    relay.cut()
    wait_until(lambda: one.events.count("connected") == 2)
    again = sum(relay.settled()) - first
    print(f"joining {first} B, coming back {again} B")
    assert again <= 5000


def test_an_idle_link_costs_at_most_a_byte_a_second(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here = federation(keepalive=12.0)
    relay = here.relay()
    here.join(port=relay.port, keepalive=1.0)
    here.grid.wait_for_clients(1)
    here.ask(b"x")
    relay.settled(0.2)
    before, began = len(relay.passed), time.monotonic()

    def probe() -> list[int]:
        """What has passed up to the first answer: the client asks again no sooner."""
        passed = relay.passed[before:]
        answers = [place for place, (way, _) in enumerate(passed, 1) if way == "down"]
        return [size for _, size in passed[: answers[0]]] if answers else []

    wait_until(probe)
    ping = sum(probe())
    print(f"a probe costs {ping} B after {time.monotonic() - began:.1f} s: {ping / 240:.2f} B/s")
    assert ping / 240 <= 1
