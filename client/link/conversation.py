"""What a client keeps of its talk with a server, whatever carries the frames.

Messages are numbered; each is worked on once, and its answer is kept until the server no longer
waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import DecodeError

from client.link.application import Application, LocalApp
from client.link.aside import aside
from client.link.fetch import (
    GoneError,
    InterruptedFetchError,
    PartFile,
    UnobtainableError,
    fetch_from_web,
)
from client.link.memory import LinkMemory
from protos import link_v1_pb2 as link
from protos import recast_v1_pb2 as pb
from protos.link import unpack
from recast_core.backoff import Backoff
from recast_core.errors import RecastError
from recast_core.files import remedy
from recast_core.text import how_many

logger = logging.getLogger("recast.link")
KEPT_ANSWERS = 256


class Conversation(ABC):
    """A client's memory and its ClientApp. How frames come and go is for those who extend it."""

    def __init__(
        self, name: str, local: LocalApp, backoff: Backoff | None, heard: Callable[[str], None]
    ) -> None:
        """Prepare; nothing is sent.

        Args:
            name: this client's, the same as its certificate's.
            local: what answers, and where it keeps what must survive a restart.
            backoff: waits between attempts.
            heard: is told of each event in a word or two.
        """
        self.name = name
        self.fetched = 0
        self._folder = local.cache / "link"
        self._overrides = local.overrides
        self._backoff = backoff or Backoff()
        self._heard = heard
        self._memory = LinkMemory.load(self._folder / f"{name}.json")
        self._application = Application(local, self._memory, self._answered)
        self._instance = secrets.randbits(32)
        self._attempt = 0
        self._received = 0
        self._seen: set[int] = set()
        self._answers: dict[int, bytes] = {}
        self._unsent: list[int] = []
        self._fetches: dict[int, asyncio.Task[None]] = {}
        self._parts: dict[int, PartFile] = {}

    @property
    def busy(self) -> bool:
        """Whether the application is at work."""
        return self._application.busy

    async def run(self) -> None:
        """Take part until the server says that the run is finished.

        Raises:
            RecastError: the server will not have this client, or another process took its place.
        """
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._begin()
        try:
            while True:
                reason = await self._connect()
                if reason == link.Dismissal.REASON_FINISHED:
                    return
                if reason == link.Dismissal.REASON_REPLACED:
                    raise RecastError(
                        f"another process joined as {self.name!r}: stop one of them, or give it a "
                        "certificate of its own"
                    )
                await asyncio.sleep(self._backoff.next())
        finally:
            for task in self._fetches.values():
                task.cancel()

    @abstractmethod
    def _begin(self) -> None:
        """Make what belongs to the event loop, which runs now."""

    @abstractmethod
    async def _connect(self) -> link.Dismissal.Reason | None:
        """One connection from beginning to end; the reason if the server ended it for one."""

    @abstractmethod
    async def _bring(self, part: PartFile, reference: link.Reference) -> bytes:
        """Fetch a body, or the rest of it, into ``part``.

        Raises:
            GoneError: nobody has it any more.
            InterruptedFetchError: what came stays for the next attempt.
            OSError: the disk takes no more.
            RecastError: other bytes came.
        """

    def _join(self, claimed: str) -> link.Join:
        """What to say on joining, ``claimed`` as this client's name."""
        return link.Join(
            session=self._memory.session,
            received=self._received,
            instance=self._instance,
            attempt=self._attempt,
            name=claimed,
        )

    def _welcomed(self, frame: link.FromServer) -> bool:
        if frame.WhichOneof("body") != "welcome":
            return False
        welcome = frame.welcome
        if welcome.session != self._memory.session or welcome.settings:
            settings = json.loads(welcome.settings) | dict(self._overrides)
            for task in self._fetches.values():
                task.cancel()
            self._fetches.clear()
            self._parts.clear()
            self._seen.clear()
            self._received = 0
            self._memory.begin(welcome.session, settings)
        waited_for = set(welcome.outstanding)
        if late := set(self._unsent) - waited_for:
            text = "%s came too late: the server went on"
            logger.warning(text, how_many(len(late), "answer"))
        self._answers = {n: a for n, a in self._answers.items() if n in waited_for}
        self._unsent = sorted(self._answers)
        return True

    def _take(self, frame: link.FromServer) -> None:
        """Work on a message that has not come before."""
        number = frame.number
        if number in self._seen:
            return
        self._seen.add(number)
        self._received = max(self._received, number)
        if frame.WhichOneof("body") == "reference":
            work = self._obtain(self._memory.session, number, frame.reference)
            self._fetches[number] = asyncio.create_task(work)
            return
        message = unpack(frame)
        if message is not None:
            self._heard(message[0])
            self._application.submit(self._memory.session, number, *message)

    async def _obtain(self, session: int, number: int, reference: link.Reference) -> None:
        """Fetch a body over as many connections as it takes, and work on it."""
        part = PartFile(self._folder, reference.sha256, reference.size)
        self._heard("fetching")
        while True:
            before = part.offset
            try:
                part.prepare()
                if reference.url:
                    body = await aside(lambda: fetch_from_web(part, reference))
                else:
                    body = await self._bring(part, reference)
            except GoneError:
                part.remove()
                return
            except InterruptedFetchError as error:
                logger.warning("fetched %d of %d bytes%s", part.offset, part.size, error)
            except UnobtainableError as error:
                logger.error("%s", error)
                self._keep(session, number, _failed(number, str(error)))
                return
            except OSError as error:
                # Others need not wait for the deadline: the server asks again in its next round,
                # and what has come so far is kept.
                self._keep(session, number, _unwritten(number, self._folder, error))
                return
            except (RecastError, DecodeError) as error:
                logger.warning("%s", error)
            else:
                self.fetched += part.size - before
                self._parts[number] = part
                self._application.submit(session, number, reference.type, body)
                return
            self.fetched += max(0, part.offset - before)
            await asyncio.sleep(self._backoff.next())

    def _answered(self, session: int, number: int, frame: bytes) -> None:
        # Of a training that outlasted the run: nobody fetches its answer any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._keep, session, number, frame)

    def _keep(self, session: int, number: int, frame: bytes) -> None:
        if session != self._memory.session:
            return
        self._fetches.pop(number, None)
        part = self._parts.pop(number, None)
        if part is not None and not _declines(frame):
            part.remove()
        self._answers[number] = frame
        while len(self._answers) > KEPT_ANSWERS:
            del self._answers[min(self._answers)]
        self._unsent.append(number)
        self._wake.set()


def _failed(number: int, text: str) -> bytes:
    return link.FromClient(number=number, error=text[:200]).SerializeToString()


def _unwritten(number: int, folder: Path, error: OSError) -> bytes:
    """The answer of a client whose disk takes no more."""
    text = f"cannot write in {folder}: {error.strerror or error}; {remedy(error)}"
    logger.error("%s", text)
    return _failed(number, text)


def _declines(raw: bytes) -> bool:
    """Whether an answer says that nothing came of the message, so that its body may come again."""
    frame = link.FromClient.FromString(raw)
    if frame.WhichOneof("body") == "error":
        return True
    try:
        return bool(pb.ToServer.FromString(frame.reply).WhichOneof("body") == "refusal")
    except DecodeError:
        return False
