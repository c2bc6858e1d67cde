"""How runs begin and end in the registry."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from recast_core.errors import RecastError
from server.record.history import History
from server.record.opened import insistent
from server.record.tables import Run, Task
from server.record.tables_beside import Folder, Rewind


def _without_secrets(words: Sequence[str]) -> list[str]:
    """A command line to keep and to show, without the tokens that let somebody in."""
    found, hidden = [], False
    for word in words:
        option, equals, _ = word.partition("=")
        secret = option in ("--token", "--web-token")
        found.append("HIDDEN" if hidden else f"{option}=HIDDEN" if secret and equals else word)
        hidden = secret and not equals
    return found


def now() -> str:
    """The time as the registry keeps it: ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@insistent
class Runs(History):
    """A registry, to read and to write runs in."""

    def start_run(
        self,
        config: Mapping[str, object],
        bank_sha256: bytes,
        versions: Mapping[str, str],
        command: str | None = None,
    ) -> int:
        """Begin a run and return its id.

        Args:
            config: kept as JSON; values that JSON lacks are kept as their ``str``.
            bank_sha256: 32 bytes.
            versions: package name to version.
            command: the command line, this process's own where ``None``.
        """
        run = Run(
            status="running",
            command=shlex.join(_without_secrets(sys.argv)) if command is None else command,
            config=dict(config),
            versions=dict(versions),
            bank_sha256=bank_sha256,
            started=now(),
        )
        with self.writing("a run") as session:
            session.add(run)
            session.flush()
            number = run.id
            if self.place.url:
                session.add(Folder(run=number, folder=self.place.folder))
        return number

    def finish_run(self, run: int, status: Literal["finished", "interrupted", "failed"]) -> None:
        """Record how a run ended, and when. A resumed run ends again."""
        with self.writing(f"the end of run {run}") as session:
            found = self.existing(session, run)
            found.status, found.finished = status, now()

    def finish_with(self, run: int, tasks: int) -> bool:
        """End a run as finished, unless it has more than ``tasks`` tasks or one is to go back.

        Returns:
            Whether it ended; what is added later is refused.
        """
        with self.writing(f"the end of run {run}") as session:
            found = self.existing(session, run)
            count = select(func.count()).select_from(Task).where(Task.run == run)
            asked = select(Rewind.id).where(Rewind.run == run, Rewind.done.is_(None)).limit(1)
            if (session.scalar(count) or 0) > tasks or session.scalar(asked) is not None:
                return False
            found.status, found.finished = "finished", now()
        return True

    def resume_run(self, run: int) -> None:
        """A run that had ended, or had been killed, runs again."""
        with self.writing(f"the resumption of run {run}") as session:
            found = self.existing(session, run)
            found.status, found.finished = "running", None

    def existing(self, session: Session, run: int) -> Run:
        """The run, for a transaction to change.

        Raises:
            RecastError: there is none of that number.
        """
        found = session.get(Run, run)
        if found is None:
            raise RecastError(f"{self.place} has no run {run}: `recast tasks list` shows them")
        return found
