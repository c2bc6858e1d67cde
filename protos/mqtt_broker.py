"""One connection to a broker, from its greeting to its end. It never connects again by itself."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from protos.link import MAX_FRAME
from protos.mqtt import BrokerUrl
from protos.mqtt_faults import BrokerFaultError, alert, explained

logger = logging.getLogger("recast.link")
SECONDS = 15.0
MOST_ALIASES = 16
# What a broker says when somebody else came with the same client identifier.
_TAKEN_OVER = 0x8E
# Unsupported version, bad identifier, bad credentials, not authorised, banned, bad method.
_PERMANENT = {0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C}
_CREDENTIALS = {0x86, 0x87, 0x8A, 0x8C}


@dataclass(frozen=True)
class Login:
    """Who connects, and how.

    Attributes:
        url: where to.
        client_id: names the connection; a second one of the same name ends the first.
        user: for the broker, where it has passwords.
        password: likewise.
        tls: ``None`` for plain text.
        certificate: what the certificate's file is called, for messages; empty for none.
        keepalive: seconds of silence after which a ping says that this end is there.
    """

    url: BrokerUrl
    client_id: str
    user: str | None
    password: str | None
    tls: ssl.SSLContext | None
    certificate: str
    keepalive: float


@dataclass(frozen=True)
class Will:
    """What the broker publishes when the connection ends without a word."""

    topic: str
    payload: bytes
    retain: bool


Heard = Callable[[str, bytes], None]
Lost = Callable[[BrokerFaultError], None]


class Broker:
    """A connection. ``publish`` may be called from any thread; callbacks come in paho's own."""

    def __init__(self, login: Login, will: Will | None, heard: Heard, lost: Lost) -> None:
        """Prepare; nothing is sent.

        Args:
            login: who and where.
            will: on an end without a word; ``None`` for none.
            heard: is told topic and payload of what comes.
            lost: is told once why the connection ended, unless ``close`` ended it.
        """
        self._login, self._will, self._heard, self._lost = login, will, heard, lost
        self._greeted = threading.Event()
        self._ready = threading.Event()
        self._fault: BrokerFaultError | None = None
        self._granted: list[ReasonCode] = []
        self._closing = False
        self._aliases: dict[str, int] = {}
        self._most_aliases = 0
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()
        self._quiet = threading.Event()
        self._complaint = ""
        self._last: paho.MQTTMessageInfo | None = None
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=login.client_id,
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = SECONDS
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_publish = self._on_subscribe, self._on_publish
        client.on_message, client.on_log = self._on_message, self._on_log

    def connect(self, filters: Sequence[tuple[str, int]]) -> None:
        """Connect and subscribe to each filter at its quality of service; blocks.

        Raises:
            BrokerFaultError: it does not work.
        """
        login, client = self._login, self._client
        if login.tls is not None:
            client.tls_set_context(login.tls)
        if login.user is not None:
            client.username_pw_set(login.user, login.password)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=self._will.retain)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.TopicAliasMaximum = MOST_ALIASES
        # A packet would be in memory before anybody could refuse it: the broker leaves it out.
        properties.MaximumPacketSize = 4 * MAX_FRAME
        address = login.url.address
        try:
            client.connect(
                address.host,
                address.port,
                keepalive=max(5, int(login.keepalive)),
                clean_start=True,
                properties=properties,
            )
        except (OSError, ValueError) as error:
            raise explained(
                error,
                address.host,
                login.certificate,
                secure=login.tls is not None,
                seconds=SECONDS,
            ) from error
        client.loop_start()
        try:
            self._await(self._greeted, "no greeting from the broker")
            if filters:
                # Retained messages come at once, what this end published itself does not come.
                client.subscribe([(f, SubscribeOptions(qos=q, noLocal=True)) for f, q in filters])
                self._await(self._ready, "the broker does not confirm what was subscribed to")
                self._check_granted(filters)
        except BrokerFaultError:
            self.close()
            raise

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, alias: bool = False
    ) -> None:
        """Publish; with ``alias`` the topic's name goes once, where the broker takes aliases."""
        properties = None
        with self._lock:
            name = topic
            if alias and (topic in self._aliases or len(self._aliases) < self._most_aliases):
                known = topic in self._aliases
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
                properties.TopicAlias = self._aliases.setdefault(topic, len(self._aliases) + 1)
                name = "" if known else topic
            self._last = self._client.publish(
                name, payload, qos=qos, retain=retain, properties=properties
            )

    def subscribe(self, topic: str) -> None:
        """Subscribe to one topic more, at quality of service 1."""
        self._client.subscribe([(topic, SubscribeOptions(qos=1, noLocal=True))])

    def unsubscribe(self, topic: str) -> None:
        """Take that back."""
        self._client.unsubscribe(topic)

    def hush(self, filters: Sequence[str], seconds: float) -> None:
        """Hear no more; returns when the broker has confirmed it, or in time.

        A connection that is closed while something comes may be reset on the way, and what was
        said last with it: then the broker publishes the will.
        """
        self._client.on_unsubscribe = lambda *_: self._quiet.set()
        self._client.unsubscribe(list(filters))
        self._quiet.wait(seconds)

    def flush(self, seconds: float) -> None:
        """Return when the broker has confirmed what was published, or in time."""
        if self._last is not None:
            with contextlib.suppress(RuntimeError, ValueError):
                self._last.wait_for_publish(seconds)

    def close(self, *, will: bool = False) -> None:
        """End the connection, and have the broker publish the will where that is wanted."""
        self._closing = True
        code = ReasonCode(PacketTypes.DISCONNECT, identifier=0x04 if will else 0x00)
        self._client.disconnect(code)
        self._client.loop_stop()

    def _await(self, event: threading.Event, what: str) -> None:
        if not event.wait(SECONDS):
            raise BrokerFaultError(f"{what} within {SECONDS:.0f} s: check host and port")
        if self._fault is not None:
            raise self._fault

    def _check_granted(self, filters: Sequence[tuple[str, int]]) -> None:
        for (name, _), code in zip(filters, self._granted, strict=False):
            if code.is_failure:
                raise BrokerFaultError(
                    f"the broker does not let {self._who()} read {name} ({code}): let it, as in "
                    "the access list of docs/mqtt.md",
                    permanent=True,
                )

    def _who(self) -> str:
        return repr(self._login.user or self._login.client_id)

    def _ended(self, fault: BrokerFaultError) -> None:
        if self._fault is None:
            self._fault = fault
        established = self._ready.is_set()
        self._greeted.set()
        self._ready.set()
        if established and not self._closing:
            self._closing = True
            self._lost(fault)

    def _on_connect(
        self, _c: object, _u: object, _f: object, code: ReasonCode, found: Properties | None
    ) -> None:
        if not code.is_failure:
            most = getattr(found, "TopicAliasMaximum", 0) if found is not None else 0
            self._most_aliases = min(most, MOST_ALIASES)
            self._greeted.set()
            return
        remedy = "check host and port"
        if code.value in _CREDENTIALS:
            remedy = "check the user in the URL and RECAST_MQTT_PASSWORD, or the certificate"
        elif code.value == 0x84:
            remedy = "use a broker of MQTT 5"
        permanent = code.value in _PERMANENT
        self._ended(
            BrokerFaultError(
                f"the broker refuses {self._who()} ({code}): {remedy}", permanent=permanent
            )
        )

    def _on_disconnect(
        self, _c: object, _u: object, _f: object, code: ReasonCode, _p: object
    ) -> None:
        if code.value == _TAKEN_OVER:
            self._ended(BrokerFaultError("another process took this name", replaced=True))
            return
        text = self._complaint or str(code)
        fault = alert(text, self._login.certificate)
        if fault is None and not self._greeted.is_set():
            hint = (
                "or that it does not accept the certificate"
                if self._login.certificate
                else "or that it wants a certificate"
                if self._login.tls
                else "or that it wants TLS: give mqtts://"
            )
            fault = BrokerFaultError(
                f"the broker ended the connection before its greeting ({text}): it may be that no "
                f"MQTT broker is there, {hint}"
            )
        self._ended(fault or BrokerFaultError(f"the connection ended ({text})"))

    def _on_subscribe(
        self, _c: object, _u: object, _m: int, codes: list[ReasonCode], _p: object
    ) -> None:
        self._granted = codes
        self._ready.set()

    def _on_publish(self, _c: object, _u: object, _m: int, code: ReasonCode, _p: object) -> None:
        if code.value == 0x87:
            fault = BrokerFaultError(
                f"the broker does not let {self._who()} write where it must: let it, as in the "
                "access list of docs/mqtt.md",
                permanent=True,
            )
            # Not from paho's own callback, which cannot stop its own thread.
            threading.Thread(target=self._ended, args=(fault,), daemon=True).start()

    def _on_message(self, _c: object, _u: object, message: paho.MQTTMessage) -> None:
        topic = message.topic
        alias = getattr(message.properties, "TopicAlias", None)
        if alias is not None:
            topic = topic or self._names.get(alias, "")
            self._names[alias] = topic
        try:
            self._heard(topic, bytes(message.payload))
        except Exception:
            logger.exception("a message of the broker's cannot be dealt with")

    def _on_log(self, _c: object, _u: object, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR and "socket" in text:
            self._complaint = text.rpartition(": ")[2]
