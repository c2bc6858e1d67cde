"""What following a drift is worth: fog that thickens over a task's rounds, and fog that does not.

``python -m experiments.studies.drift`` prints a row for each seed: accuracy in the fog of the last
round, of coefficients that were learned while it thickened, in the first round's fog alone, and in
the last round's all along; and before all, of the same clients where nothing is learned. A client
answers as in any task whose classifier is kept, by its statistics, label mix or a head of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

from client.alone import Alone
from client.answer import answer
from client.asked import Asked
from client.node import Node
from client.turn import take
from experiments.studies.one_line import in_one_line
from experiments.studies.trial import learned
from protos import recast_v1_pb2 as pb
from recast_core.settings import Settings
from recast_core.start import Start
from recast_core.wire.codec import Vector
from recast_core.wire.messages import bank_ref, to_broadcast


def accuracy(settings: Settings, clients: int, start: Start, vector: Vector, source: str) -> float:
    """The fraction of all clients' test images of ``source`` that a vector ``[D]`` gets right."""
    right = examples = 0
    message = to_broadcast(start, 1, settings.rounds, vector)
    message.head_kind = pb.HEAD_BACKBONE
    told = pb.HelloRequest(bank=bank_ref(start, 1), tasks=[pb.Task(id=1, name="t", source=source)])
    with tempfile.TemporaryDirectory() as folder:
        for number in range(clients):
            node = Node(number, Path(folder), None, (number, clients), settings)
            node.store(start.to_bytes(), start.sha256)
            for body in (pb.ToClient(hello=told), pb.ToClient(evaluate=message)):
                asked = Asked(body.SerializeToString())
                found = take([answer(asked, node)], Alone())[0].evaluation
            right, examples = right + found.correct, examples + found.examples
    return right / examples


def row(seed: int, clients: int, shift: str, first: int, last: int) -> list[float]:
    """Accuracies in the last severity: nothing learned, followed, first alone, last all along."""
    data = "digits[50%:]"
    base = Settings(seed=seed, begin="bank", device="cpu")
    found: list[float] = []
    for level in (f"{first}-{last}", str(first), str(last)):
        settings = replace(base, tasks=f"t={data}+{shift}:{level}")
        start, vector = learned(settings, clients)
        judge = partial(accuracy, settings, clients, start, source=f"t={data}+{shift}:{last}")
        if not found:
            found.append(judge(start.initial_vector.numpy()))
        found.append(judge(vector))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--shift", default="fog")
    parser.add_argument("--severities", default="1-5", help="of the first round and the last")
    given = parser.parse_args(arguments)
    first, last = map(int, given.severities.split("-"))
    print(f"| seed | nothing learned | followed {first} to {last} | {first} alone ", end="")
    print(f"| {last} all along |")
    print("|--:|--:|--:|--:|--:|")
    rows = []
    for seed in range(given.seeds):
        rows.append(row(seed, given.clients, given.shift, first, last))
        told = " | ".join(f"{100 * one:.1f}" for one in rows[-1])
        print(f"| {seed} | {told} |", flush=True)
    told = " | ".join(_spread(column) for column in zip(*rows, strict=True))
    print(f"| mean (lowest-highest) | {told} |")


def _spread(found: Sequence[float]) -> str:
    return f"{100 * fmean(found):.1f} ({100 * min(found):.1f}-{100 * max(found):.1f})"


if __name__ == "__main__":
    in_one_line(main)
