"""A client's life: join, answer, lose the link, join again, until the run is finished."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from client.link.application import LocalApp
from client.link.channel import Endpoint
from client.link.complaints import Complaints
from client.link.conversation import Conversation
from client.link.fetch import GoneError, InterruptedFetchError, PartFile, fetch
from protos import link_v1_pb2 as link
from protos.link import SERVICE, TALK
from recast_core.backoff import Backoff
from recast_core.text import plain

logger = logging.getLogger("recast.link")
WELCOME_SECONDS = 30.0
Call = grpc.aio.StreamStreamCall


class LinkClient(Conversation):
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
        super().__init__(name, local, backoff, heard)
        self._endpoint = endpoint
        self._complaints = Complaints(endpoint, name)

    def _begin(self) -> None:
        self._channel: asyncio.Future[grpc.aio.Channel] = self._loop.create_future()

    async def _connect(self) -> link.Dismissal.Reason | None:
        """One connection from beginning to end; the reason if the server ended it for one."""
        channel = self._endpoint.connect()
        sender: asyncio.Task[None] | None = None
        self._attempt += 1
        try:
            call: Call[bytes, bytes] = channel.stream_stream(f"/{SERVICE}/{TALK}")()
            join = self._join(self._endpoint.claim(self.name))
            await call.write(link.FromClient(join=join).SerializeToString())
            # Not wait_for, which before Python 3.12 loses a stop that comes with the answer.
            async with asyncio.timeout(WELCOME_SECONDS):
                raw = await call.read()
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

    async def _bring(self, part: PartFile, reference: link.Reference) -> bytes:
        channel = await asyncio.shield(self._channel)
        try:
            return await fetch(channel, part, reference.sha256, self._endpoint.claim(self.name))
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                raise GoneError from error
            raise InterruptedFetchError from error

    async def _send(self, call: Call[bytes, bytes]) -> None:
        while True:
            while self._unsent:
                # Kept until the server says on a later joining that it is not waiting for it.
                await call.write(self._answers[self._unsent[0]])
                self._heard("answered")
                del self._unsent[0]
            await self._wake.wait()
            self._wake.clear()
