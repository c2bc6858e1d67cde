"""The same run on different grids ends in the same coefficients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.record.registry import Registry

if TYPE_CHECKING:
    from conftest import Simulated


def test_the_sequential_engine_and_flowers_ray_simulation_agree(
    simulated: Simulated, simulate: Callable[[str], Simulated]
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'recast-fl[ray]'")
    on_ray = simulate("ray")
    assert on_ray.report["engine"] == "ray"
    with (
        Registry(simulated.folder / "registry.sqlite") as one,
        Registry(on_ray.folder / "registry.sqlite") as other,
    ):
        for task in (1, 2):
            for round_ in (1, 2):
                np.testing.assert_allclose(
                    other.coefficients(1, task, round_),
                    one.coefficients(1, task, round_),
                    rtol=0,
                    atol=1e-5,
                )
            assert [entry.clients for entry in other.rounds(1, task)] == [2, 2]
    for here, there in zip(simulated.report["tasks"], on_ray.report["tasks"], strict=True):
        assert here == there | {"accuracy": pytest.approx(there["accuracy"])}
    assert on_ray.report["bank"] == simulated.report["bank"]
