"""Radio links that carry small messages: what fits a frame, how long it takes, how often it may.

Sizes and rates are those of the specifications; a cell's coverage, retransmissions, attachment and
a satellite's pass over the horizon come on top of the times given here.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from recast_core.airtime import LORAWAN_OVERHEAD, lora_seconds
from recast_core.errors import RecastError

DAY = 86_400.0
# IPv4 and UDP headers without options.
IP_OVERHEAD = 28


@dataclass(frozen=True)
class Radio:
    """One kind of link.

    Attributes:
        name: of the preset.
        title: for people.
        frame: bytes of application payload in one uplink message.
        source: where ``frame`` and the rate come from.
        overhead: bytes that every frame adds to its payload.
        rate: bits per second upwards, at best; 0 for LoRa, whose time follows from ``spreading``.
        spreading: LoRa's spreading factor, 0 for others.
        bandwidth: of LoRa in Hz.
        duty: the fraction of time that a device may send.
        latency: seconds that a message takes besides its transfer.
    """

    name: str
    title: str
    frame: int
    source: str
    overhead: int = 0
    rate: float = 0.0
    spreading: int = 0
    bandwidth: float = 0.0
    duty: float = 1.0
    latency: float = 0.0

    def frames(self, size: int) -> int:
        """How many frames ``size`` bytes take.

        Raises:
            ValueError: less than one byte.
        """
        if size < 1:
            raise ValueError(f"a message of {size} bytes")
        return math.ceil(size / self.frame)

    def seconds_on_air(self, size: int) -> float:
        """How long the sender transmits ``size`` bytes, over as many frames as they take."""
        before = self.frames(size) - 1
        last = size - before * self.frame
        return before * self._frame_seconds(self.frame) + self._frame_seconds(last)

    def seconds(self, size: int) -> float:
        """From the first bit sent to the last received, pauses for the duty cycle included."""
        before = self.frames(size) - 1
        last = size - before * self.frame
        paced = before * self._frame_seconds(self.frame) / self.duty
        return paced + self._frame_seconds(last) + self.latency

    def messages_per_day(self, size: int) -> int:
        """How many messages of ``size`` bytes one device may send in a day."""
        return math.floor(self.duty * DAY / self.seconds_on_air(size))

    def _frame_seconds(self, size: int) -> float:
        total = size + self.overhead
        if self.spreading:
            return lora_seconds(total, self.spreading, self.bandwidth)
        return 8 * total / self.rate


def _lorawan(rate: int, spreading: int, frame: int) -> Radio:
    return Radio(
        f"lorawan-dr{rate}",
        f"LoRaWAN DR{rate}",
        frame,
        "LoRaWAN Regional Parameters RP002-1.0.4, EU863-870: data rates, and maximum payload size "
        "N, repeater compatible; duty cycle 1 % of ERC/REC 70-03, annex 1, 868.0-868.6 MHz",
        overhead=LORAWAN_OVERHEAD,
        spreading=spreading,
        bandwidth=125e3,
        duty=0.01,
    )


RADIOS = {
    radio.name: radio
    for radio in (
        *(
            _lorawan(rate, 12 - rate, frame)
            for rate, frame in enumerate((51, 51, 51, 115, 222, 222))
        ),
        Radio(
            "sms",
            "SMS",
            140,
            "3GPP TS 23.040, 9.2.3.24: 140 octets of user data; GSM's SDCCH/8 carries 184 bits in "
            "a 51-frame multiframe of 235.4 ms; 36 octets of addresses and headers, and 5 s in the "
            "service centre, are assumptions",
            overhead=36,
            rate=184 / 0.2354,
            latency=5.0,
        ),
        Radio(
            "iridium-sbd",
            "Iridium SBD",
            340,
            "Iridium 9602 SBD Transceiver Developer's Guide: mobile originated 340 bytes, "
            "terminated 270; 2.4 kbit/s channel; the shortest messages are delivered in about 5 s",
            rate=2400.0,
            latency=5.0,
        ),
        Radio(
            "nb-iot",
            "NB-IoT",
            1358 - IP_OVERHEAD,
            "3GPP TS 23.060, annex C: link MTU 1358 octets; category NB1 of release 13: 62 kbit/s "
            "up at best; 1.6 s of latency, the lower end of what is quoted for NB1",
            overhead=IP_OVERHEAD,
            rate=62e3,
            latency=1.6,
        ),
        Radio(
            "lte-m",
            "LTE-M",
            1358 - IP_OVERHEAD,
            "3GPP TS 23.060, annex C: link MTU 1358 octets; category M1 of release 13, half "
            "duplex: 375 kbit/s up at best; 15 ms of latency",
            overhead=IP_OVERHEAD,
            rate=375e3,
            latency=0.015,
        ),
    )
}


def radio(name: str) -> Radio:
    """The preset of that name.

    Raises:
        RecastError: there is none.
    """
    if name not in RADIOS:
        near = difflib.get_close_matches(name, RADIOS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RecastError(f"unknown radio {name!r}: choose one of {', '.join(RADIOS)}{hint}")
    return RADIOS[name]


def fitting(size: int) -> list[Radio]:
    """The radios that carry ``size`` bytes in one frame, in the order of the presets."""
    return [radio for radio in RADIOS.values() if size <= radio.frame]
