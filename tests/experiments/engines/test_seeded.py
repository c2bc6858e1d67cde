"""A seeded bank follows from the backbone and 8 bytes, so it never crosses the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.record.registry import Registry


@pytest.mark.parametrize(("source", "sent"), [("seeded", False), ("closed-form", True)])
def test_only_a_bank_that_clients_cannot_make_is_sent(
    tiny: Callable[..., Settings],
    recast: Callable[..., Any],
    command_line: Callable[[Settings], list[str]],
    tmp_path: Path,
    source: str,
    sent: bool,
) -> None:
    settings = tiny(rounds=1, source=source, run_dir=str(tmp_path / "run"))
    done = recast("simulate", "--clients", "2", *command_line(settings))
    assert done.returncode == 0, done.stderr
    with Registry(tmp_path / "run" / "registry.sqlite") as registry:
        totals = Ledger(registry).totals(1, by=("kind", "layer"))
    assert (totals.get(("bank", "payload"), 0) > 0) is sent
