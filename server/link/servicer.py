"""The two methods of the link, on asyncio. What a message means is for others to know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from protos import link_v1_pb2 as link
from protos.link import CHUNK, FETCH, MAX_FRAME, SERVICE, TALK, is_name
from server.link.bodies import Bodies
from server.link.identity import DeniedError, Revocations, certified
from server.link.limits import FETCHES_AT_ONCE, SECONDS_TO_JOIN
from server.link.session import RefusedFrameError, Session, Stream
from server.link.sessions import Sessions

logger = logging.getLogger("recast.link")
Context = grpc.aio.ServicerContext
_ADVICE = {
    link.Dismissal.REASON_FINISHED: "finished",
    link.Dismissal.REASON_REPLACED: "joined again",
}


class Servicer:
    """Serves streams and fetches for the clients of ``sessions``."""

    def __init__(
        self, sessions: Sessions, bodies: Bodies, revocations: Revocations, *, certificates: bool
    ) -> None:
        """With ``certificates``, a client's name is its certificate's, else what it says."""
        self._sessions = sessions
        self._bodies = bodies
        self._revocations = revocations
        self._certificates = certificates

    def handler(self) -> grpc.GenericRpcHandler:
        """Handlers that take and give plain bytes, so that what does not parse is ours to count."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            TALK: grpc.stream_stream_rpc_method_handler(self.talk),
            FETCH: grpc.unary_stream_rpc_method_handler(self.fetch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def talk(self, _requests: object, context: Context[bytes, bytes]) -> None:
        """One client's stream, from its Join to its end."""
        loop = asyncio.get_running_loop()
        wake = asyncio.Event()
        name = "?"

        def waker() -> None:
            loop.call_soon_threadsafe(wake.set)

        try:
            raw = await asyncio.wait_for(context.read(), SECONDS_TO_JOIN)
            join = _first(raw)
            name, serial = self._who(context, join.name)
            session, stream, welcome = self._sessions.join(name, serial, join, waker)
        except TimeoutError:
            await self._refuse(context, name, RefusedFrameError("silent", "no Join came"))
            return
        except (DeniedError, RefusedFrameError) as error:
            await self._refuse(context, getattr(error, "name", None) or name, error)
            return
        logger.info("client %s joined from %s (node %d)", name, context.peer(), session.node)
        refused: list[RefusedFrameError] = []
        reader = asyncio.create_task(self._read(session, stream, context, wake, refused))
        try:
            frame = link.FromServer(welcome=welcome).SerializeToString()
            while not stream.closed:
                await self._write(session, frame, context)
                frame = await self._next(session, stream, wake)
                if not frame:
                    break
            if refused:
                await self._refuse(context, name, refused[0])
            elif stream.dismissal is not None:
                last = link.FromServer(dismissal=link.Dismissal(reason=stream.dismissal))
                await self._write(session, last.SerializeToString(), context)
        finally:
            reader.cancel()
            self._sessions.leave(session, stream)
            why = "away" if stream.dismissal is None else _ADVICE[stream.dismissal]
            logger.info("client %s: stream ended (%s)", name, why)

    async def fetch(self, raw: bytes, context: Context[bytes, bytes]) -> AsyncIterator[bytes]:
        """The rest of a body, in chunks."""
        name = "?"
        try:
            request = link.FetchRequest.FromString(raw)
            name, _ = self._who(context, request.name)
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
        session.fetching += 1
        try:
            for offset in range(request.offset, len(body), CHUNK):
                chunk = link.Chunk(content=body[offset : offset + CHUNK]).SerializeToString()
                session.down += len(chunk)
                yield chunk
        finally:
            session.fetching -= 1

    def drop_revoked(self) -> None:
        """End the streams of clients whose certificates have been revoked; on the loop."""
        if not self._revocations.refresh():
            return
        for session in self._sessions.all():
            stream = session.stream
            if stream is not None and session.serial in self._revocations:
                stream.closed = True
                stream.wake()

    def _who(self, context: Context[bytes, bytes], claimed: str) -> tuple[str, int | None]:
        if not self._certificates:
            if not is_name(claimed):
                raise DeniedError("a name of letters, digits, dots and dashes is needed")
            return claimed, None
        name, serial = certified(context.auth_context())
        self._revocations.refresh()
        if serial in self._revocations:
            raise DeniedError(f"the certificate of {name} has been revoked", name)
        return name, serial

    async def _read(
        self,
        session: Session,
        stream: Stream,
        context: Context[bytes, bytes],
        wake: asyncio.Event,
        refused: list[RefusedFrameError],
    ) -> None:
        try:
            while isinstance(raw := await context.read(), bytes):
                self.drop_revoked()
                if stream.closed:
                    break
                self._sessions.receive(session, stream, raw)
        except RefusedFrameError as error:
            refused.append(error)
        finally:
            stream.closed = True
            wake.set()

    async def _next(self, session: Session, stream: Stream, wake: asyncio.Event) -> bytes:
        """The next frame to write; empty when there is to be no more."""
        while not stream.closed and stream.dismissal is None:
            due = self._sessions.next_due(session, stream)
            if due:
                return due
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
        await context.abort(code, str(error))


def _first(raw: object) -> link.Join:
    if not isinstance(raw, bytes):
        raise RefusedFrameError("silent", "no Join came")
    if len(raw) > MAX_FRAME:
        raise RefusedFrameError("oversize", f"a first frame of {len(raw)} bytes")
    try:
        frame = link.FromClient.FromString(raw)
    except DecodeError as error:
        raise RefusedFrameError("garbage", "bytes that are no frame") from error
    if frame.WhichOneof("body") != "join":
        raise RefusedFrameError("garbage", "the first frame is no Join")
    return frame.join
