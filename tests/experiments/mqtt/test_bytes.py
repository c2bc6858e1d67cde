"""What MQTT costs a client on the wire, counted as TCP payload by a relay before the broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from protos import recast_v1_pb2 as pb
from recast_core.wire.codec import encode

if TYPE_CHECKING:
    from conftest import Site

ROUNDS = 10
DEFAULT_KEEPALIVE = 240


def broadcast(round_: int) -> bytes:
    hyper = pb.Hyperparameters(epochs=2, batch=32, learning_rate=0.02, bits=8, seed=7)
    offsets = encode(np.linspace(-1, 1, 24, dtype=np.float32), 16).data
    train = pb.Broadcast(
        bank=0xDEADBEEF, task=1, round=round_, coefficients=offsets, hyperparameters=hyper
    )
    return pb.ToClient(train=train).SerializeToString()


def update(round_: int) -> bytes:
    encoded = encode(np.linspace(-1, 1, 24, dtype=np.float32), 8)
    made = pb.Update(
        bank=0xDEADBEEF,
        task=1,
        round=round_,
        examples=200,
        scale=encoded.scale,
        coefficients=encoded.data,
    )
    return pb.ToServer(update=made).SerializeToString()


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
    site: Callable[..., Site], quiet: Callable[..., tuple[int, int]]
) -> None:
    here = site()
    here.serve()
    relay = here.relay()
    here.join("one", port=relay.port, keepalive=5)
    here.grid.wait_for_clients(1)
    before = sum(quiet(relay))
    time.sleep(5.5)
    ping = sum(quiet(relay)) - before
    assert 0 < ping <= DEFAULT_KEEPALIVE, ping
