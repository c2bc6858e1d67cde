"""A registry that is open: its transactions, and what becomes of them when a database goes away."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from recast_core.closing import Closing
from recast_core.unbroken import heed, unbroken
from server.record.database import AwayError, is_away, open_database, plain_damage, plain_errors
from server.record.place import named, place_of, point
from server.record.tables_beside import Writer

logger = logging.getLogger("recast.server")
# How long a run waits for its database to come back, and how often it looks.
PATIENCE, PAUSE = 300.0, 1.0
_OWN = frozenset({"reading", "writing", "existing", "close", "claim", "insist"})
Found = TypeVar("Found")
Kind = TypeVar("Kind", bound=type)


class Opened(Closing):
    """A registry. Safe to use from several threads and processes at once.

    Attributes:
        path: of the file; where the registry is in a database, what it would be: its folder is the
            runs'.
        place: where it is.
        patience: seconds to wait for a database that is away.
    """

    def __init__(self, path: Path, *, read_only: bool = False, url: str | None = None) -> None:
        """Open the registry that goes by ``path``, or create it and its folder.

        Args:
            path: of the file, or beside what points to a database.
            read_only: change nothing: neither create it nor complete it, nor wait for a lock.
            url: of a database that the folder is to point to; "" for where it points already.

        Raises:
            RecastError: what is there is another program's, of another schema, or no registry, or
                a database is away.
        """
        self.path = path
        self.place = place_of(path) if url is None else named(path, url)
        self.patience = 0.0
        self._claim: Any = None
        self._writer, self._writes = secrets.token_hex(16), 0
        self._engine = open_database(self.place, read_only=read_only)
        if url is not None:
            point(self.place)

    def close(self) -> None:
        """Close it."""
        if self._claim is not None:
            self._claim.drop()
        self._engine.dispose()

    def claim(self) -> None:
        """Keep every other server from the runs of this folder, in a database; wait for it if away.

        Raises:
            RecastError: another has them.
        """
        self.patience = PATIENCE
        if self.place.url:
            from server.record.postgres import Claim

            with plain_errors(self.place, "claiming the runs"):
                self._claim = Claim(self._engine, self.place.folder)

    def is_claimed(self) -> bool:
        """Whether a server has the runs of this folder, as far as a database knows."""
        if not self.place.url:
            return False
        from server.record.postgres import is_claimed

        with self.reading() as session:
            return is_claimed(session.connection(), self.place.folder)

    def insist(self, work: Callable[[], Found]) -> Found:
        """What ``work`` finds, begun again while a database is away, for as long as we wait."""
        ends: float | None = None
        while True:
            try:
                found = work()
            except AwayError as error:
                if ends is None:
                    ends = time.monotonic() + self.patience
                    if self.patience:
                        logger.warning("%s: waiting %.0f s for it", error, self.patience)
                if time.monotonic() >= ends:
                    raise
                time.sleep(PAUSE)
                heed()
                continue
            if ends is not None:
                logger.warning("%s is back", self.place)
            return found

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A read transaction: one consistent view."""
        level = {"isolation_level": "REPEATABLE READ"} if self.place.url else {}
        with (
            plain_damage(self.place),
            plain_errors(self.place, "reading"),
            self._session("reading", **level) as session,
        ):
            yield session

    @contextmanager
    def writing(self, what: str) -> Iterator[Session]:
        """A write transaction, which excludes all others; ``what`` names it in an error."""
        doing = f"recording {what}"
        with (
            plain_damage(self.place),
            plain_errors(self.place, doing),
            self._session(doing, write=True) as session,
        ):
            yield session
            self._commit(session)

    @contextmanager
    def _session(self, doing: str, **options: Any) -> Iterator[Session]:
        """A session that has begun, and that an interrupt does not break."""
        made = Session(self._engine.execution_options(**options), expire_on_commit=False)

        def begin() -> None:
            try:
                with plain_errors(self.place, doing):
                    if self._claim is not None:
                        self._claim.check()
                    made.connection()
            except BaseException:
                made.rollback()
                raise

        with unbroken(), made as session:
            self.insist(begin)
            yield session

    def _commit(self, session: Session) -> None:
        """Commit; where a database leaves meanwhile, ask it afterwards what became of it."""
        if self._claim is None:
            session.commit()
            return
        self._writes += 1
        own = Writer(folder=self.place.folder, writer=self._writer, writes=self._writes)
        written = self._writer, self._writes
        session.merge(own)
        session.flush()
        try:
            session.commit()
        except SQLAlchemyError as error:
            if not is_away(error):
                raise

            def is_recorded() -> bool:
                with self._session("looking after a commit", write=True) as other:
                    found = other.get(Writer, self.place.folder)
                    return found is not None and (found.writer, found.writes) == written

            if not self.insist(is_recorded):
                raise


def check_registry(path: Path, url: str) -> None:
    """Find out whether a registry in a database can be used, before anybody is waited for.

    Args:
        path: see ``Opened``.
        url: likewise.

    Raises:
        RecastError: it cannot.
    """
    place = named(path, url)
    if place.url:
        open_database(place).dispose()


def insistently(work: Callable[..., Found]) -> Callable[..., Found]:
    """Let what works on a registry begin again where its database goes away in the middle.

    A transaction that was cut off has changed nothing.
    """

    @wraps(work)
    def wrapped(registry: Opened, *args: Any, **kwargs: Any) -> Found:
        if not registry.patience or not registry.place.url:
            return work(registry, *args, **kwargs)
        return registry.insist(lambda: work(registry, *args, **kwargs))

    return wrapped


def insistent(kind: Kind) -> Kind:
    """Make all methods of a kind of registry ``insistently`` what they are."""
    for name, method in list(vars(kind).items()):
        if callable(method) and not name.startswith("_") and name not in _OWN:
            setattr(kind, name, insistently(method))
    return kind
