"""What went over the air: frames, bytes, seconds, and the days that this takes by the rules."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

DAY = 86_400.0
DEVICE_DUTY, GATEWAY_DUTY = 0.01, 0.1


@dataclass
class OneWay:
    """Frames of one direction."""

    frames: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def add(self, size: int, seconds: float) -> None:
        """One frame more."""
        self.frames += 1
        self.bytes += size
        self.seconds += seconds


@dataclass
class Account:
    """Frames by device, as far as they were heard or queued here; lost uplinks are not.

    Attributes:
        ups: of each device.
        downs: to each device.
    """

    ups: dict[str, OneWay] = field(default_factory=lambda: defaultdict(OneWay))
    downs: dict[str, OneWay] = field(default_factory=lambda: defaultdict(OneWay))

    def up(self, device: str, size: int, seconds: float) -> None:
        """An uplink of ``size`` bytes of payload."""
        self.ups[device].add(size, seconds)

    def down(self, device: str, size: int, seconds: float) -> None:
        """A downlink that was queued."""
        self.downs[device].add(size, seconds)

    def as_dict(self) -> dict[str, float]:
        """Totals, the largest payloads on average, and the days that the duty cycles demand."""
        ups, downs = list(self.ups.values()), list(self.downs.values())
        device = max((one.seconds for one in ups), default=0.0) / DEVICE_DUTY
        gateway = sum(one.seconds for one in downs) / GATEWAY_DUTY
        return {
            "devices": len(ups),
            "frames_up": sum(one.frames for one in ups),
            "frames_down": sum(one.frames for one in downs),
            "bytes_up": sum(one.bytes for one in ups),
            "bytes_down": sum(one.bytes for one in downs),
            "airtime_up": round(sum(one.seconds for one in ups), 3),
            "airtime_down": round(sum(one.seconds for one in downs), 3),
            "days_by_duty_cycle": round(max(device, gateway) / DAY, 4),
        }
