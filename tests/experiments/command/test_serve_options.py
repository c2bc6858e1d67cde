"""Options of `recast serve` that would do nothing beside others are refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--mqtt", "mqtts://localhost:1", "--listen", "0.0.0.0:9441"], "leave --listen out"),
        (["--mqtt", "mqtts://localhost:1", "--insecure"], "leave --insecure out"),
        (["--bank-url", "https://x.example/b", "--method", "full"], "method full has no bank"),
        (["--secure-aggregation", "--clients", "2"], "give at least 3"),
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


@pytest.mark.parametrize("command", ["simulate", "measure"])
def test_two_clients_that_cannot_hide_each_other_are_sent_nothing(
    recast: Callable[..., Any], tmp_path: Path, command: str
) -> None:
    done = recast(command, "--clients", "2", "--secure-aggregation", "--run-dir", "run",
                  folder=tmp_path)  # fmt: skip
    assert done.returncode == 2
    assert "--clients 2 and --secure-aggregation: give at least 3" in done.stderr
    assert not (tmp_path / "run").exists()
