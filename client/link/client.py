"""A client's life: join, answer, lose the link, join again, until the run is finished."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from client.link.application import Application, LocalApp
from client.link.backoff import Backoff
from client.link.channel import Endpoint
from client.link.complaints import Complaints
from client.link.fetch import PartFile, fetch
from client.link.memory import LinkMemory
from protos import link_v1_pb2 as link
from protos import recast_v1_pb2 as pb
from protos.link import SERVICE, TALK, unpack
from recast_core.errors import RecastError
from recast_core.files import remedy
from recast_core.text import plain

logger = logging.getLogger("recast.link")
WELCOME_SECONDS = 30.0
KEPT_ANSWERS = 256
Call = grpc.aio.StreamStreamCall


class LinkClient:
    """Keeps one stream to the server and answers each message once, whatever the link does."""

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        local: LocalApp,
        *,
        backoff: Backoff | None = None,
        heard: Callable[[str], None] = lambda event: None,
    ) -> None:
        """Prepare; ``run`` connects.

        Args:
            endpoint: the server.
            name: this client's, the same as its certificate's.
            local: what answers, and where it keeps what must survive a restart.
            backoff: waits between attempts.
            heard: is told of each event in a word or two.
        """
        self.name = name
        self.fetched = 0
        self._endpoint = endpoint
        self._folder = local.cache / "link"
        self._overrides = local.overrides
        self._backoff = backoff or Backoff()
        self._complaints = Complaints(endpoint, name)
        self._heard = heard
        self._memory = LinkMemory.load(self._folder / f"{name}.json")
        self._application = Application(local, self._memory, self._answered)
        self._instance = secrets.randbits(32)
        self._attempt = 0
        self._received = 0
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
        self._channel: asyncio.Future[grpc.aio.Channel] = self._loop.create_future()
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

    async def _connect(self) -> link.Dismissal.Reason | None:
        """One connection from beginning to end; the reason if the server ended it for one."""
        channel = self._endpoint.connect()
        sender: asyncio.Task[None] | None = None
        self._attempt += 1
        try:
            call: Call[bytes, bytes] = channel.stream_stream(f"/{SERVICE}/{TALK}")()
            await call.write(self._join())
            raw = await asyncio.wait_for(call.read(), WELCOME_SECONDS)
            if not isinstance(raw, bytes) or not self._welcomed(link.FromServer.FromString(raw)):
                await call.code()
                raise grpc.aio.UsageError("no Welcome")
            self._backoff.reset()
            self._complaints.connected()
            self._heard("connected")
            self._channel.set_result(channel)
            sender = asyncio.create_task(self._send(call))
            while isinstance(raw := await call.read(), bytes):
                frame = link.FromServer.FromString(raw)
                if frame.WhichOneof("body") == "dismissal":
                    return frame.dismissal.reason
                if frame.WhichOneof("body") == "notice":
                    logger.warning("the server says: %s", plain(frame.notice, 400))
                    continue
                self._take(frame)
            logger.warning("the server ended the stream; joining again")
        except grpc.aio.AioRpcError as error:
            await self._complaints.about(error)
        except (TimeoutError, DecodeError, grpc.aio.UsageError) as error:
            logger.warning("no sense from %s: %s", self._endpoint.target, error or "silence")
        finally:
            if self._channel.done():
                self._channel = self._loop.create_future()
                self._heard("away")
            if sender is not None:
                sender.cancel()
            await channel.close()
        return None

    def _join(self) -> bytes:
        join = link.Join(
            session=self._memory.session,
            received=self._received,
            instance=self._instance,
            attempt=self._attempt,
            name=self._endpoint.claim(self.name),
        )
        return link.FromClient(join=join).SerializeToString()

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
            self._received = 0
            self._memory.begin(welcome.session, settings)
        waited_for = set(welcome.outstanding)
        if late := set(self._unsent) - waited_for:
            logger.warning("%d answers came too late: the server went on without them", len(late))
        self._answers = {n: a for n, a in self._answers.items() if n in waited_for}
        self._unsent = sorted(self._answers)
        return True

    def _take(self, frame: link.FromServer) -> None:
        """Work on a message that has not come before."""
        number = frame.number
        if number <= self._received:
            return
        self._received = number
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
            channel = await asyncio.shield(self._channel)
            before = part.offset
            try:
                part.prepare()
                body = await fetch(channel, part, reference.sha256, self._endpoint.claim(self.name))
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND:
                    part.remove()
                    return
                logger.warning("fetched %d of %d bytes", part.offset, part.size)
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

    async def _send(self, call: Call[bytes, bytes]) -> None:
        while True:
            while self._unsent:
                # Kept until the server says on a later joining that it is not waiting for it.
                await call.write(self._answers[self._unsent[0]])
                self._heard("answered")
                del self._unsent[0]
            await self._wake.wait()
            self._wake.clear()


def _unwritten(number: int, folder: Path, error: OSError) -> bytes:
    """The answer of a client whose disk takes no more."""
    text = f"cannot write in {folder}: {error.strerror or error}; {remedy(error)}"
    logger.error("%s", text)
    return link.FromClient(number=number, error=text[:200]).SerializeToString()


def _declines(raw: bytes) -> bool:
    """Whether an answer says that nothing came of the message, so that its body may come again."""
    frame = link.FromClient.FromString(raw)
    if frame.WhichOneof("body") == "error":
        return True
    try:
        return bool(pb.ToServer.FromString(frame.reply).WhichOneof("body") == "refusal")
    except DecodeError:
        return False
