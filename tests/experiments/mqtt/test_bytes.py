"""What MQTT costs a client on the wire, counted as TCP payload by a relay before the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.experiments.ends import broadcast, update

if TYPE_CHECKING:
    from conftest import Site

ROUNDS = 10
DEFAULT_KEEPALIVE = 240


def test_a_round_of_24_coefficients_over_tls_costs_a_client_at_most_260_bytes(
    site: Callable[..., Site], quiet: Callable[..., tuple[int, int]]
) -> None:
    here = site()
    here.serve()
    relay = here.relay()
    here.join("one", lambda type_, body: update(2), relay.port)
    here.join("two", lambda type_, body: update(2))
    here.grid.wait_for_clients(2)
    assert here.ask(broadcast(1), "one", "two") == [update(2)] * 2
    up, down = quiet(relay)
    for round_ in range(2, 2 + ROUNDS):
        assert here.ask(broadcast(round_), "one", "two") == [update(2)] * 2
    later_up, later_down = quiet(relay)
    each = (later_up - up) / ROUNDS, (later_down - down) / ROUNDS
    assert sum(each) <= 260, each


def test_an_idle_client_costs_at_most_a_byte_a_second_over_tls(
    site: Callable[..., Site], quiet: Callable[..., tuple[int, int]],
    wait_until: Callable[..., None],
) -> None:  # fmt: skip
    here = site()
    here.serve()
    relay = here.relay()
    one = here.join("one", port=relay.port, keepalive=5)
    wait_until(lambda: "connected" in one.events)
    before = sum(quiet(relay))
    wait_until(lambda: relay.counted().up + relay.counted().down > before)
    ping = sum(quiet(relay)) - before
    assert 0 < ping <= DEFAULT_KEEPALIVE, ping
