"""With error feedback and random rounding, folded clients answer as each of them alone.

Both hang on what went before: on the rounds of one client, and on the numbers drawn for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from client.app import app
from experiments.engines.fleet import Fleet
from experiments.engines.fleet_grid import FleetGrid
from experiments.engines.folded import FoldedGrid
from experiments.engines.local import LocalGrid
from experiments.engines.sequential import SequentialGrid
from recast_core.heads import head_names
from recast_core.settings import Settings
from server.app import run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.ledger import Ledger
from server.record.registry import Registry

CLIENTS, ROUNDS = 4, 3
Make = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _server() -> Iterator[None]:
    with server_identity():
        yield


@pytest.fixture
def rounded(tiny: Make) -> Make:
    """Settings with random rounding to a few bits and error feedback."""

    def make(**changed: object) -> Settings:
        values: dict[str, object] = {
            "rounds": ROUNDS, "epochs": 2, "batch": 8, "partition": "dirichlet:1", "bits": 3,
            "rounding": "stochastic", "error_feedback": True,
        }  # fmt: skip
        return tiny(**(values | changed))

    return make


def learned(grid: LocalGrid, settings: Settings, folder: Path) -> dict[str, object]:
    run_federation(grid, settings, folder, LogObserver())
    with Registry(folder / "registry.sqlite") as registry:
        tasks = registry.tasks(1)
        return {
            "coefficients": [
                registry.coefficients(1, task.number, round_).tolist()
                for task in tasks
                for round_ in range(1, ROUNDS + 1)
            ],
            "rounds": [
                (r.clients, r.examples) for t in tasks for r in registry.rounds(1, t.number)
            ],
            "accuracies": [
                (a.task, a.after_task, a.accuracy, a.head_only_accuracy)
                for a in registry.accuracies(1)
            ],
            "bytes": Ledger(registry).totals(
                1, by=("task", "client", "direction", "kind", "layer")
            ),
            "refusals": Ledger(registry).refusals(1),
        }


def both(
    settings: Settings, tmp_path: Path, fleet: Fleet | None = None
) -> tuple[dict[str, object], dict[str, object]]:
    grids = (
        SequentialGrid(CLIENTS, app, settings, tmp_path / "caches"),
        FoldedGrid(CLIENTS, settings),
    )
    one, other = (
        learned(
            grid if fleet is None else FleetGrid(grid, fleet, settings.seed, settings.epochs),
            settings,
            tmp_path / name,
        )
        for name, grid in zip(("alone", "folded"), grids, strict=True)
    )
    return one, other


def same(one: dict[str, object], other: dict[str, object]) -> None:
    assert one.keys() == other.keys()
    for name, found in one.items():
        assert other[name] == found, name
    assert np.abs(np.array(one["coefficients"])).max() > 0.01


# A deployed classifier needs a network that knows the classes: test_kept_head has one.
@pytest.mark.parametrize("head", [head for head in head_names() if head != "backbone"])
def test_every_kind_of_head_ends_in_the_registry_of_one_client_after_another(
    rounded: Make, tmp_path: Path, head: str
) -> None:
    one, other = both(rounded(head=head), tmp_path)
    same(one, other)
    assert one["refusals"] == {}


@pytest.mark.parametrize("bits", [8, 1])
def test_answers_that_are_lost_are_made_good_alike(
    rounded: Make, tmp_path: Path, bits: int
) -> None:
    fleet = Fleet(availability=0.8, drop_out=0.3)
    one, other = both(rounded(bits=bits), tmp_path, fleet)
    same(one, other)
    assert one["refusals"]
    calm, _ = both(rounded(bits=bits), tmp_path / "calm")
    assert calm["coefficients"] != one["coefficients"]


@pytest.mark.parametrize("off", [{"error_feedback": False}, {"rounding": "nearest"}])
def test_each_of_the_two_changes_what_is_learned(
    rounded: Make, tmp_path: Path, off: dict[str, object]
) -> None:
    runs = [
        learned(FoldedGrid(CLIENTS, settings), settings, tmp_path / name)["coefficients"]
        for name, settings in (("on", rounded()), ("off", rounded(**off)))
    ]
    assert runs[0] != runs[1]
