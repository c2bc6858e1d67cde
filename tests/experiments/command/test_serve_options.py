"""Options of `recast serve` that would do nothing beside others are refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--mqtt", "mqtts://localhost:1", "--listen", "0.0.0.0:9441"], "leave --listen out"),
        (["--mqtt", "mqtts://localhost:1", "--insecure"], "leave --insecure out"),
        (["--bank-url", "https://x.example/b", "--method", "full"], "method full has no bank"),
        (["--lorawan", "mqtt://localhost:1/a", "--bank-url", "https://x.example/b"], "--bank-url"),
        (["--lorawan", "mqtt://localhost:1/a", "--listen", "0.0.0.0:1"], "has no --listen"),
    ],
)
def test_what_would_do_nothing_is_refused(
    recast: Callable[..., Any], options: list[str], why: str
) -> None:
    done = recast("serve", *options)
    assert done.returncode == 2
    assert why in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
