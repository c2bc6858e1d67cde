"""How long the codec takes, and the server for ten thousand updates.

``python -m experiments.studies.codec_speed`` prints the median of many repetitions, in one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from rich.table import Table

from experiments.command.console import stdout
from protos import recast_v1_pb2 as pb
from recast_core.bank import TemplateBank, TemplateGroup
from recast_core.wire.codec import Vector, decode
from recast_core.wire.messages import Hyperparameters, to_update
from recast_core.wire.transforms import round_update
from server.exchange.share import Share
from server.rounds.aggregation import average
from server.rounds.checks import check_update

COUNT, UPDATES, REPETITIONS, PASSES = 24, 10_000, 3000, 5
WIDTHS = (32, 16, 8, 5, 4, 2, 1)


def encoding_microseconds(bits: int, stochastic: bool) -> float:
    """Median time to encode and decode one update's numbers."""
    vectors = np.random.default_rng(0).normal(0, 0.01, (64, COUNT)).astype(np.float32)
    hyper, nothing = Hyperparameters(bits=bits, stochastic=stochastic), pb.Broadcast()

    def once(number: int) -> None:
        encoded = round_update(vectors[number % 64], None, nothing, hyper, number)
        decode(encoded, COUNT, bits)

    return 1e6 * _median(once, REPETITIONS)


def serving_seconds(bits: int) -> float:
    """Median time to parse, check and average ``UPDATES`` updates."""
    bank = TemplateBank(
        (TemplateGroup("g", ("m",), "weight", (0,), torch.eye(COUNT)),), (torch.zeros(COUNT),)
    )
    start: Vector = bank.initial_vector.numpy()
    vectors = np.random.default_rng(0).normal(0, 0.01, (UPDATES, COUNT)).astype(np.float32)
    messages = [
        pb.ToServer(update=to_update(bank, 1, 1, 32, vector, bits)).SerializeToString()
        for vector in vectors
    ]
    share = Share(train_examples=32, test_examples=8, classes=10, local_classes=10)

    def once(_: int) -> None:
        average(
            start,
            [
                check_update(bank, pb.ToServer.FromString(message).update, 1, share, bits)
                for message in messages
            ],
        )

    return _median(once, 5)


def _median(work: Callable[[int], None], repetitions: int) -> float:
    taken = []
    for number in range(repetitions):
        began = time.perf_counter()
        work(number)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    """The command line."""
    table = Table(title=f"{COUNT} coefficients: microseconds to encode and decode")
    for name in ("bits", "nearest", "stochastic", f"s for {UPDATES:,} updates"):
        table.add_column(name, justify="right")
    best: dict[tuple[int, str], float] = {}
    # Whole passes, and the best of their medians: a neighbour's work comes and goes by the second.
    for _, bits in product(range(PASSES), WIDTHS):
        found = {"nearest": encoding_microseconds(bits, False), "serving": serving_seconds(bits)}
        if bits < 16:
            found["stochastic"] = encoding_microseconds(bits, True)
        for name, taken in found.items():
            best[bits, name] = min(taken, best.get((bits, name), taken))
    for bits in WIDTHS:
        stochastic = f"{best[bits, 'stochastic']:.0f}" if bits < 16 else ""
        nearest, serving = f"{best[bits, 'nearest']:.0f}", f"{best[bits, 'serving']:.2f}"
        table.add_row(str(bits), nearest, stochastic, serving)
    stdout().print(table)


if __name__ == "__main__":
    main()
