"""How long a LoRa frame is on the air, and when its sender may send the next."""

from __future__ import annotations

import math

# LoRaWAN 1.0.4, 4.1 to 4.4: MHDR 1, DevAddr 4, FCtrl 1, FCnt 2, FPort 1, MIC 4; no options.
LORAWAN_OVERHEAD = 13
PREAMBLE_SYMBOLS = 8


def lora_seconds(
    size: int, spreading: int, bandwidth: float = 125e3, *, coding: int = 1, crc: bool = True
) -> float:
    """Time on air of a LoRa packet with an explicit header and a preamble of 8 symbols.

    The formula of Semtech's SX1276/77/78/79 datasheet, revision 7, section 4.1.1.7, and of its
    application note AN1200.13, section 4. Low data rate optimisation is on where a symbol takes
    over 16 ms, as the datasheet demands.

    Args:
        size: bytes of the PHY payload.
        spreading: spreading factor, 7 to 12.
        bandwidth: Hz.
        coding: 1 to 4 for 4/5 to 4/8.
        crc: whether the payload has one; in LoRaWAN uplinks have.
    """
    symbol = (1 << spreading) / bandwidth
    slow = 1 if symbol > 16e-3 else 0
    bits = 8 * size - 4 * spreading + 28 + 16 * crc
    symbols = 8 + max(math.ceil(bits / (4 * (spreading - 2 * slow))) * (coding + 4), 0)
    return (PREAMBLE_SYMBOLS + 4.25 + symbols) * symbol


def frame_seconds(size: int, spreading: int = 12, *, up: bool = True) -> float:
    """Time on air of a LoRaWAN frame at 125 kHz whose payload has ``size`` bytes.

    Only uplinks have a checksum of the physical layer.
    """
    return lora_seconds(size + LORAWAN_OVERHEAD, spreading, crc=up)


class Duty:
    """A sender that may be on the air for a share of the time.

    Attributes:
        seconds: on the air so far.
        frames: sent so far.
    """

    def __init__(self, share: float = 0.01) -> None:
        """Nothing has been sent; ``share`` is 1 % in most of EU868, 10 % in the second window's."""
        self._share = share
        self._free = -math.inf
        self.seconds = 0.0
        self.frames = 0

    def free_at(self) -> float:
        """When the next frame may be sent, by the clock of ``sent``; minus infinity: at once."""
        return self._free

    def sent(self, now: float, seconds: float) -> None:
        """A frame of that time on air begins ``now``: silence follows until the share is kept."""
        self._free = now + seconds / self._share
        self.seconds += seconds
        self.frames += 1
