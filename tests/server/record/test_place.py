"""Where a registry is, looked at while others work there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from server.record.place import changed


def test_when_a_registry_changed_is_known_where_its_log_goes_at_that_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "registry.sqlite"
    for seconds, file in enumerate((path, tmp_path / "registry.sqlite-wal"), 1):
        file.touch()
        os.utime(file, (seconds, seconds))
    assert changed(path) == 2.0
    stat = Path.stat

    def last_seen(self: Path, **options: Any) -> os.stat_result:
        found = stat(self, **options)
        if self.name.endswith("-wal"):
            self.unlink()
        return found

    monkeypatch.setattr(Path, "stat", last_seen)
    assert changed(path) == 2.0
    assert changed(path) == 1.0
