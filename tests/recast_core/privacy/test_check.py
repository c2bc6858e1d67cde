"""Settings that would promise more than they keep are refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from recast_core import RecastError
from recast_core.settings import Settings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dp": "local"}, "--dp protects nobody without --dp-epsilon"),
        ({"clip": "0.5"}, "--clip protects nobody without --dp-epsilon"),
        ({"dp_epsilon": -1.0}, "dp_epsilon is -1"),
        ({"dp_epsilon": 1.0, "dp_delta": 0.0}, "dp_delta is 0"),
        ({"dp_epsilon": 1.0, "clip": "nan"}, "give auto, or a length"),
        ({"dp_epsilon": 1.0, "clip": "1e39"}, "from 1e-9 to 1e9"),
        ({"dp_epsilon": 1.0, "clip": "1e-50"}, "from 1e-9 to 1e9"),
        ({"dp_epsilon": 1.0, "dp": "global"}, "unknown dp 'global'"),
        ({"dp_epsilon": 1.0, "error_feedback": True}, "leave one out"),
        ({"dp_epsilon": 1.0, "head": "ridge"}, "has no noise; use head backbone, local or linear"),
        ({"dp_epsilon": 1.0, "head": "means"}, "has no noise"),
        ({"dp_epsilon": 1.0, "head": "shared"}, "has no noise"),
        ({"dp_epsilon": 1.0, "dp": "local", "transforms": "round"}, "leave round and gaussian out"),
        ({"dp_epsilon": 1.0, "dp": "distributed"}, "give --secure-aggregation too"),
        ({"dp": "distributed", "secure_aggregation": True}, "--dp protects nobody"),
        ({"secure_aggregation": True, "clip": "-1"}, "give auto, or a length"),
        ({"transforms": "gaussian:1"}, "give a length and a deviation"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RecastError) as refused:
        Settings(**given)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_rule_of_unknown_sensitivity_is_refused_with_central_noise_alone() -> None:
    with pytest.raises(RecastError, match="--aggregation median and --dp-epsilon: only of a mean"):
        Settings(dp_epsilon=1.0, aggregation="median")
    Settings(dp_epsilon=1.0, aggregation="mean")
    Settings(dp_epsilon=1.0, dp="local", aggregation="median")
