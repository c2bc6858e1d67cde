"""A client's life at a broker: wait for the server, join, answer, until the run is finished."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from google.protobuf.message import DecodeError

from client.link.application import LocalApp
from client.link.aside import aside
from client.link.conversation import Conversation
from client.link.fetch import PartFile
from client.mqtt.access import ClientAccess
from client.mqtt.chunks import Chunks
from protos import link_v1_pb2 as link
from protos.mqtt import BODY_CHUNK, Topics
from protos.mqtt_broker import Broker, Will
from protos.mqtt_faults import BrokerFaultError
from recast_core.backoff import Backoff
from recast_core.errors import RecastError
from recast_core.text import plain

logger = logging.getLogger("recast.link")
WELCOME_SECONDS = 30.0
SECONDS_ALONE = 6.0
# A broker that worked may refuse for a moment, as while its files are changed.
PATIENCE = 5
Event = tuple[str, bytes] | BrokerFaultError


class MqttClient(Conversation):
    """Answers each message once, whatever becomes of the broker and of the server."""

    def __init__(
        self,
        access: ClientAccess,
        name: str,
        local: LocalApp,
        *,
        backoff: Backoff | None = None,
        heard: Callable[[str], None] = lambda event: None,
    ) -> None:
        """Prepare; ``run`` connects.

        Args:
            access: to the broker.
            name: this client's, the same as its certificate's.
            local: what answers, and where it keeps what must survive a restart.
            backoff: waits between attempts.
            heard: is told of each event in a word or two.
        """
        super().__init__(name, local, backoff, heard)
        self._access, self._topics = access, Topics(access.url.base)
        self._connection = 0
        self._broker: Broker | None = None
        # The server process that is here, 0 for none, and whether it has welcomed this client.
        self._serving, self._talking = 0, False
        self._place = self._since = 0
        self._posts: dict[int, link.FromServer] = {}
        self._worked = False
        self._failures = 0
        # The broker is there, the server comes and goes: each is waited for by itself.
        self._joining = self._backoff.another()

    def _begin(self) -> None:
        self._chunks = Chunks()

    async def _connect(self) -> link.Dismissal.Reason | None:
        """One connection to the broker; the reason if the server sent this client away for one."""
        self._connection += 1
        self._posts.clear()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def happened(event: Event) -> None:
            with suppress(RuntimeError):  # the loop may be closed by now
                self._loop.call_soon_threadsafe(events.put_nowait, event)

        away = link.Away(instance=self._instance, connection=self._connection)
        will = Will(
            self._topics.up(self.name),
            link.FromClient(away=away).SerializeToString(),
            retain=False,
        )
        broker = self._access.broker(
            self.name, will, lambda topic, payload: happened((topic, payload)), happened
        )
        filters = [(self._topics.down(self.name), 1), (self._topics.everything, 0)]
        try:
            await aside(lambda: broker.connect(filters))
        except BrokerFaultError as fault:
            self._complain(fault)
            return None
        self._backoff.reset()
        self._broker = broker
        self._chunks.begin(broker)
        sender = asyncio.create_task(self._send())
        try:
            return await self._talk(events)
        except BrokerFaultError as fault:
            if fault.replaced:
                return link.Dismissal.REASON_REPLACED
            self._complain(fault)
            return None
        finally:
            sender.cancel()
            self._stop_talking()
            self._chunks.end()
            self._broker = None
            # Aside, for nobody waits for a network that is gone.
            asyncio.get_running_loop().run_in_executor(None, lambda: broker.close(will=True))

    def _complain(self, fault: BrokerFaultError) -> None:
        """Say why there is no broker.

        Raises:
            RecastError: trying again would not help.
        """
        target = self._access.url
        self._failures = self._failures + 1 if fault.permanent else 0
        if fault.permanent and (not self._worked or self._failures >= PATIENCE):
            raise RecastError(f"no link to {target}: {fault}") from fault
        logger.warning("no link to %s: %s; trying again", target, fault)

    async def _talk(self, events: asyncio.Queue[Event]) -> link.Dismissal.Reason | None:
        """Deal with what comes until the connection ends.

        Raises:
            BrokerFaultError: it has ended.
            RecastError: the server will not have this client.
        """
        self._serving = 0
        told = False
        while True:
            try:
                async with asyncio.timeout(self._patience()):
                    event = await events.get()
            except TimeoutError:
                if self._serving:
                    logger.warning("no welcome from the server; asking again")
                    self._ask_to_join()
                elif not told:
                    told = True
                    logger.info("the broker is there, the server is not yet: waiting for it")
                continue
            if isinstance(event, BrokerFaultError):
                raise event
            topic, payload = event
            if self._chunks.take(topic, payload):
                continue
            try:
                frame = link.FromServer.FromString(payload)
            except DecodeError as error:
                logger.warning("no sense in %s: %s", topic, error)
                continue
            if topic == self._topics.down(self.name):
                reason = await self._take_own(frame)
            elif topic == self._topics.serving:
                reason = await self._take_presence(frame)
            else:
                self._take_post(frame)
                continue
            if reason is not None:
                return reason

    def _patience(self) -> float | None:
        """Seconds to wait for what comes next."""
        if self._talking:
            return None
        return WELCOME_SECONDS if self._serving else SECONDS_ALONE

    async def _take_presence(self, frame: link.FromServer) -> link.Dismissal.Reason | None:
        """The server came, went, or has finished."""
        state, first = frame.serving.state, not self._serving
        if state == link.Serving.STATE_HERE:
            self._stop_talking()
            if not first:
                # All clients hear of it at once.
                await asyncio.sleep(self._joining.next())
            self._serving = frame.session
            self._ask_to_join()
            return None
        finished = state == link.Serving.STATE_FINISHED
        if finished and frame.session == self._memory.session:
            # The next server's run is another one.
            self._memory.begin(0, {})
            return link.Dismissal.REASON_FINISHED
        self._stop_talking()
        self._serving = 0
        return None

    async def _take_own(self, frame: link.FromServer) -> link.Dismissal.Reason | None:
        """A frame for this client alone."""
        which = frame.WhichOneof("body")
        if which == "welcome":
            self._take_welcome(frame)
        elif which == "dismissal":
            if frame.dismissal.instance not in (0, self._instance):
                return None
            if frame.dismissal.reason == link.Dismissal.REASON_DENIED:
                raise RecastError(
                    f"{self._access.url} refused {self.name!r} "
                    f"({plain(frame.dismissal.detail, 200)}): ask the federation's operator for a "
                    "certificate"
                )
            if frame.dismissal.reason == link.Dismissal.REASON_LATER:
                logger.warning("the server says: %s", plain(frame.dismissal.detail, 200))
                self._stop_talking()
                await asyncio.sleep(self._joining.next())
                self._ask_to_join()
                return None
            return frame.dismissal.reason
        elif which == "notice":
            logger.warning("the server says: %s", plain(frame.notice, 400))
        elif self._talking:
            self._take(frame)
        return None

    def _take_welcome(self, frame: link.FromServer) -> None:
        welcome = frame.welcome
        if (welcome.instance, welcome.attempt) != (self._instance, self._attempt):
            return
        self._serving = welcome.session
        if not self._welcomed(frame):
            return
        lost = [number for number in welcome.outstanding if number not in self._seen]
        if lost:
            # Of a connection that broke in between: it is sent again if it is asked for.
            self._received = min(lost) - 1
            self._ask_to_join()
            return
        self._place, self._since = welcome.place, welcome.since
        self._joining.reset()
        self._worked, self._failures = True, 0
        self._talking = True
        self._heard("connected")
        posts, self._posts = self._posts, {}
        for number in sorted(posts):
            self._take_post(posts[number])
        self._wake.set()

    def _take_post(self, frame: link.FromServer) -> None:
        """What is published once for many."""
        if not self._talking:
            self._posts[frame.number] = frame
        elif (
            frame.session == self._memory.session
            and frame.number > self._since
            and self._place not in frame.apart
        ):
            self._take(frame)

    def _ask_to_join(self) -> None:
        self._attempt += 1
        join = self._join("")
        join.connection = self._connection
        self._access.sign(self.name, join, self._serving)
        self._publish(link.FromClient(join=join).SerializeToString())

    def _stop_talking(self) -> None:
        if self._talking:
            self._heard("away")
        self._talking = False

    async def _send(self) -> None:
        while True:
            while self._unsent and self._talking:
                # Kept until the server says on a later joining that it is not waiting for it.
                self._publish(self._answers[self._unsent[0]])
                self._heard("answered")
                del self._unsent[0]
            await self._wake.wait()
            self._wake.clear()

    def _publish(self, frame: bytes) -> None:
        if self._broker is not None:
            self._broker.publish(self._topics.up(self.name), frame, alias=True)

    async def _bring(self, part: PartFile, reference: link.Reference) -> bytes:
        """A body, chunk by chunk from where an earlier attempt stopped."""
        while part.offset < part.size:
            chunk, skip = divmod(part.offset, BODY_CHUNK)
            content = await self._chunks.get(self._topics.body(reference.sha256, chunk))
            part.append(content[skip : skip + part.size - part.offset])
        return part.finish()
