"""An interrupt is the caller's, wherever the database's library was when it came."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from server.record.registry import Registry


def test_an_interrupt_as_a_connection_is_put_back_is_raised_and_is_no_traceback_in_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted(*_: object) -> None:
        event.remove(Engine, "reset", interrupted)
        raise KeyboardInterrupt

    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {})
        event.listen(Engine, "reset", interrupted)
        with pytest.raises(KeyboardInterrupt):
            registry.runs()
        assert [found.id for found in registry.runs()] == [run]
    assert [one for one in caplog.records if one.name.startswith(("recast", "sqlalchemy"))] == []
