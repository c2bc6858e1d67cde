"""The two methods of the link, on asyncio. What a message means is for others to know."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from protos import link_v1_pb2 as link
from protos.link import CHUNK, FETCH, MAX_JOIN, SERVICE, TALK, is_name
from server.exchange.carried import Carried
from server.link.admission import Admission
from server.link.bodies import Bodies
from server.link.identity import DeniedError, certified
from server.link.limits import (
    FETCHES_AT_ONCE,
    SECONDS_OF_PENANCE,
    SECONDS_TO_JOIN,
    SECONDS_TO_LEAVE,
    SECONDS_TO_LOOK,
    downloads,
)
from server.link.session import RefusedFrameError, Session, Stream
from server.link.sessions import Sessions
from server.link.turnstile import Peer, Turnstile

logger = logging.getLogger("recast.link")
Context = grpc.aio.ServicerContext
_HASTE = ("too-many-joins", "too-many-calls")
_ADVICE = {
    link.Dismissal.REASON_FINISHED: "finished",
    link.Dismissal.REASON_REPLACED: "joined again",
}


class Servicer:
    """Serves streams and fetches for the clients of ``sessions``."""

    def __init__(
        self, sessions: Sessions, bodies: Bodies, admission: Admission, *, certificates: bool
    ) -> None:
        """With ``certificates``, a client's name is its certificate's, else what it says."""
        self._sessions = sessions
        self._bodies = bodies
        self._admission = admission
        self._certificates = certificates
        self.turnstile = Turnstile()

    def handler(self) -> grpc.GenericRpcHandler:
        """Handlers that take and give plain bytes, so that what does not parse is ours to count."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            TALK: grpc.stream_stream_rpc_method_handler(self.talk),
            FETCH: grpc.unary_stream_rpc_method_handler(self.fetch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def talk(self, _requests: object, context: Context[bytes, bytes]) -> None:
        """One client's stream, from its Join to its end."""
        peer = Peer.parse(context.peer())
        name = "?"
        if peer in self.turnstile.doomed:
            return
        try:
            serial: int | None = None
            with ExitStack() as held:
                if self._certificates:
                    # Before a byte is read of what it sends.
                    name, serial = self._who(context, "")
                    self.turnstile.call(name, peer)
                    held.enter_context(self.turnstile.talking(name))
                with self.turnstile.joining(peer.host):
                    async with asyncio.timeout(SECONDS_TO_JOIN):
                        raw = await context.read()
                join = _first(raw)
                if not self._certificates:
                    name, _ = self._who(context, join.name)
                    self.turnstile.call(str(peer), peer)
                    held.enter_context(self.turnstile.talking(name))
                held.enter_context(self.turnstile.inside(peer))
                await self._serve(name, serial, join, context)
        except TimeoutError:
            await self._refuse(context, name, RefusedFrameError("silent", "no Join came"))
        except (DeniedError, RefusedFrameError) as error:
            await self._refuse(context, getattr(error, "name", None) or name, error)

    async def _serve(
        self, name: str, serial: int | None, join: link.Join, context: Context[bytes, bytes]
    ) -> None:
        """A client's stream after its Join.

        Raises:
            DeniedError: the client may not go on.
            RefusedFrameError: the Join, or a later frame, ends the stream.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        wake = asyncio.Event()

        def waker() -> None:
            loop.call_soon_threadsafe(wake.set)

        def cut() -> None:
            task.cancel()

        session, stream, welcome = self._sessions.join(name, serial, join, waker, cut)
        hush = self._sessions.hush
        text = "client %s joined from %s (node %d)"
        hush.log(logging.INFO, name, text, name, context.peer(), session.node)
        reader = asyncio.create_task(self._read(session, stream, context, wake))
        try:
            frame = link.FromServer(welcome=welcome).SerializeToString()
            while not stream.closed:
                await self._write(session, frame, context)
                frame = await self._next(session, stream, wake)
                if not frame:
                    break
            if stream.refused is not None:
                raise stream.refused
            while not stream.closed and (notice := self._sessions.next_notice(session, stream)):
                await self._write(session, notice, context)
            if stream.dismissal is not None:
                last = link.FromServer(dismissal=link.Dismissal(reason=stream.dismissal))
                await self._write(session, last.SerializeToString(), context)
        finally:
            reader.cancel()
            self._sessions.leave(session, stream)
            why = "away" if stream.dismissal is None else _ADVICE[stream.dismissal]
            hush.log(logging.INFO, name, "client %s: stream ended (%s)", name, why)

    async def fetch(self, raw: bytes, context: Context[bytes, bytes]) -> None:
        """The rest of a body, in chunks.

        No generator: of one whose peer goes away nobody would run the end, which frees the slot.
        """
        name = "?"
        try:
            request = link.FetchRequest.FromString(raw)
            name, serial = self._who(context, request.name)
            self.turnstile.call(name, Peer.parse(context.peer()))
            session = self._sessions.get(name)
            if session is None:
                raise DeniedError("fetching without having joined")
            if session.fetching >= FETCHES_AT_ONCE:
                raise RefusedFrameError("too-many-fetches", "fetching too often", retry=True)
        except DecodeError:
            await self._refuse(context, name, RefusedFrameError("garbage", "no FetchRequest"))
            return
        except (DeniedError, RefusedFrameError) as error:
            await self._refuse(context, getattr(error, "name", None) or name, error)
            return
        body = self._bodies.get(request.sha256)
        if body is None or request.offset > len(body):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such body, or not that long")
            return
        type_ = self._bodies.type_of(request.sha256)
        budget = session.fetched.setdefault(request.sha256, downloads(len(body)))
        end = request.offset
        session.fetching += 1
        try:
            for offset in range(request.offset, len(body), CHUNK):
                self._admission.admit(name, serial)
                if not budget.take(min(CHUNK, len(body) - offset)):
                    raise RefusedFrameError("too-many-fetches", "fetching it again", retry=True)
                content = body[offset : offset + CHUNK]
                chunk = link.Chunk(content=content).SerializeToString()
                session.down += len(chunk)
                # Handed over from here on, also where the peer leaves before it is written.
                end += len(content)
                await context.write(chunk)
        except (DeniedError, RefusedFrameError) as error:
            await self._refuse(context, name, error)
        finally:
            if end > request.offset:
                self._sessions.carry(Carried(session.node, type_, request.offset, end, len(body)))
            session.fetching -= 1

    async def watch(self) -> None:
        """End the streams of clients that are revoked, also of those that say and read nothing."""
        while True:
            for stream in self._admission.expel_revoked():
                # What has had its time to end by itself, with a word, is cut.
                asyncio.get_running_loop().call_later(SECONDS_TO_LEAVE, stream.cut)
            await asyncio.sleep(SECONDS_TO_LOOK)

    def _who(self, context: Context[bytes, bytes], claimed: str) -> tuple[str, int | None]:
        if not self._certificates:
            if not is_name(claimed):
                raise DeniedError("a name of letters, digits, dots and dashes is needed")
            return claimed, None
        name, serial = certified(context.auth_context())
        self._admission.admit(name, serial)
        return name, serial

    async def _read(
        self,
        session: Session,
        stream: Stream,
        context: Context[bytes, bytes],
        wake: asyncio.Event,
    ) -> None:
        try:
            while isinstance(raw := await context.read(), bytes):
                if not self._admission.may_go_on(session, stream) or stream.closed:
                    return
                self._sessions.receive(session, stream, raw)
        except RefusedFrameError as error:
            stream.refused = error
        finally:
            stream.closed = True
            wake.set()

    async def _next(self, session: Session, stream: Stream, wake: asyncio.Event) -> bytes:
        """The next frame to write; empty when there is to be no more."""
        while not (stream.closed or stream.over or stream.dismissal or stream.refused):
            due = self._sessions.next_due(session, stream)
            if due:
                return due if self._admission.may_go_on(session, stream) else b""
            await wake.wait()
            wake.clear()
        return b""

    async def _write(self, session: Session, frame: bytes, context: Context[bytes, bytes]) -> None:
        session.down += len(frame)
        await context.write(frame)

    async def _refuse(
        self, context: Context[bytes, bytes], name: str, error: DeniedError | RefusedFrameError
    ) -> None:
        """End a stream with a status that says whether to come again."""
        if isinstance(error, DeniedError):
            reason, code = "denied", grpc.StatusCode.PERMISSION_DENIED
        else:
            reason = error.reason
            code = (
                grpc.StatusCode.RESOURCE_EXHAUSTED
                if error.retry
                else grpc.StatusCode.INVALID_ARGUMENT
            )
        known = None if name == "?" else name
        self._sessions.refuse(known, reason, f"{error} (from {context.peer()})")
        if reason in _HASTE:
            # Whoever hurries is slowed down: to come again costs a TLS greeting each time.
            await asyncio.sleep(SECONDS_OF_PENANCE)
        await context.abort(code, str(error))


def _first(raw: object) -> link.Join:
    if not isinstance(raw, bytes):
        raise RefusedFrameError("silent", "no Join came")
    if len(raw) > MAX_JOIN:
        raise RefusedFrameError("oversize", f"a first frame of {len(raw)} bytes")
    try:
        frame = link.FromClient.FromString(raw)
    except DecodeError as error:
        raise RefusedFrameError("garbage", "bytes that are no frame") from error
    if frame.WhichOneof("body") != "join":
        raise RefusedFrameError("garbage", "the first frame is no Join")
    return frame.join
