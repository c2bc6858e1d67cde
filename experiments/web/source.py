"""What the live page shows: the registry, opened to read, and what the server last said."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.report.data import report_data
from experiments.report.page import render, render_waiting
from experiments.report.points import own_points
from recast_core.errors import RecastError
from server.record.history import History
from server.record.place import place_of


class Source:
    """The page and the state, made anew when there is something new. Safe to use from threads."""

    def __init__(self, registry: Path) -> None:
        """Look at the registry at ``registry``, which need not be there yet."""
        self._registry = registry
        self._lock = threading.Lock()
        self._made: tuple[object, str] | None = None
        self._history: History | None = None
        self._last: tuple[tuple[object, ...], ...] = ()
        self.state: dict[str, Any] = {}
        self.ended = False

    def follow(self, lines: Iterable[str]) -> None:
        """Take the server's state from lines of JSON until they end, and the server with them."""
        for line in lines:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                self.state = found
        self.ended = True

    @property
    def version(self) -> str:
        """Another text whenever the registry has changed."""
        return "-".join(f"{one}.{other}" for one, other in self._signature())

    def page(self) -> str:
        """The report as the registry has it now; a page that says so where there is no run yet."""
        signature = self._signature()
        with self._lock:
            if self._made is None or self._made[0] != signature:
                self._made = signature, self._render()
            return self._made[1]

    def _render(self) -> str:
        try:
            data = report_data(self._registry, read_only=True)
        except RecastError:
            return render_waiting()
        return render(data, own_points(data), live=True)

    def _signature(self) -> tuple[tuple[object, object], ...]:
        found: list[tuple[object, object]] = []
        if place_of(self._registry).url:
            return self._moment()
        for path in (self._registry, self._registry.with_name(f"{self._registry.name}-wal")):
            try:
                about = path.stat()
            except OSError:
                continue
            if about.st_size:  # An empty log is one that reading made.
                found.append((about.st_size, about.st_mtime_ns))
        return tuple(found)

    def _moment(self) -> tuple[tuple[object, object], ...]:
        """Of a registry in a database; the last one known where that is away."""
        try:
            if self._history is None:
                self._history = History(self._registry, read_only=True)
            self._last = (self._history.moment(),)
        except RecastError:
            pass
        return tuple((one[0], one[-1]) for one in self._last if one)
