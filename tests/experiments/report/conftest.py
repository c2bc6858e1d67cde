"""A registry as a long federation leaves it: many clients, several tasks, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from server.record.registry import Registry
from server.record.rows import Direction, FinishedRound, Kind, LedgerRow, Measured, Refusal

NAMES = (
    "digits", "digits-inverted", "digits-rotated", "flowers102-0-19-noisy", "gtsrb",
    "a-task-with-a-name-of-forty-characters-x",
)  # fmt: skip
REASONS = ("stale-round", "malformed", "client-error", "bank-mismatch")
HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">{{ 7 * 7 }}'


def fill(
    path: Path,
    clients: int = 100,
    tasks: int = 6,
    rounds: int = 5,
    hostile: bool = False,
    again: bool = True,
) -> int:
    """Write a run of invented numbers and return its id.

    Args:
        path: the registry's file.
        clients: how many, with ids as long as Flower's.
        tasks: how many, at most six.
        rounds: of each task.
        hostile: whether names that come over the network are markup.
        again: whether every task is evaluated after each later one, and not only after the last.
    """
    random = np.random.default_rng(0)
    ids = [str(value) for value in random.integers(2**60, 2**63, clients)]
    if hostile:
        ids[0] = HOSTILE
    with Registry(path) as registry:
        run = registry.start_run(
            {"seed": 3, "rounds": rounds, "tasks": HOSTILE if hostile else " ".join(NAMES[:tasks])},
            bytes(range(32)),
            {"recast-fl": "0.1.0", "torch": "2.6.0"},
            "/usr/bin/recast simulate --seed 3" + (" '</pre><b>bold</b>'" if hostile else ""),
        )
        names = list(NAMES[:tasks])
        if hostile:
            names[-1] = HOSTILE
        registry.record_traffic(run, [row for i in ids for row in _bank(i)])
        for number, name in enumerate(names, start=1):
            registry.add_task(run, name)
            shares = {
                i: (int(n), int(n) // 4)
                for i, n in zip(ids, random.integers(5, 75, clients), strict=True)
            }
            registry.describe_task(run, number, 10, shares)
        base = random.uniform(0.62, 0.97, tasks)
        for number, name in enumerate(names, start=1):
            for round_ in range(1, rounds + 1):
                present = [i for i in ids if random.random() < 0.9]
                rows = [row for i in present for row in _round(i, name, round_)]
                refused = [
                    Refusal(
                        i, name, round_, str(random.choice(REASONS)),
                        HOSTILE if hostile else f"round {round_ - 1} came in round {round_}",
                    )
                    for i in present
                    if random.random() < 0.03
                ]  # fmt: skip
                found = FinishedRound(
                    number, round_, np.zeros(24, np.float32), 40 * len(present),
                    len(present), float(random.uniform(1, 2)),
                )  # fmt: skip
                registry.record_rounds(run, [found], rows, refused)
            for task in range(1, number + 1):
                if task == number or again or number == tasks:
                    measured = Measured(
                        task, rounds, float(base[task - 1]) - 0.004 * (number - task),
                        float(base[task - 1]) - 0.03, 10 * clients, clients, after_task=number,
                    )  # fmt: skip
                    registry.record_accuracies(run, [measured])
        registry.finish_run(run, "finished")
    return run


def _rows(
    client: str, task: str | None, round_: int, direction: Direction, kind: Kind, *sizes: int
) -> list[LedgerRow]:
    payload, message = sizes
    return [
        LedgerRow(task, round_, client, direction, kind, "payload", payload),
        LedgerRow(task, round_, client, direction, kind, "message", message),
    ]


def _bank(client: str) -> list[LedgerRow]:
    return _rows(client, None, 0, "down", "bank", 389104, 389152)


def _round(client: str, task: str, round_: int) -> list[LedgerRow]:
    return [
        *_rows(client, task, round_, "down", "coefficients", 48, 75),
        *_rows(client, task, round_, "up", "coefficients", 24, 45),
        *_rows(client, task, round_, "up", "metrics", 0, 17),
    ]


@pytest.fixture(scope="session")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    fill(folder / "registry.sqlite")
    return folder


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    fill(folder / "registry.sqlite", clients=3, tasks=2, rounds=2, hostile=True)
    return folder
