"""What went over the air: frames, bytes and seconds of each device."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from server.record.rows import Air, Direction


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
        ways: of each device, by direction.
    """

    ways: dict[tuple[str, Direction], OneWay] = field(default_factory=lambda: defaultdict(OneWay))

    def up(self, client: str, size: int, seconds: float) -> None:
        """An uplink of ``size`` bytes of payload."""
        self.ways[client, "up"].add(size, seconds)

    def down(self, client: str, size: int, seconds: float) -> None:
        """A downlink that was queued."""
        self.ways[client, "down"].add(size, seconds)

    def take(self) -> list[Air]:
        """What has passed since this was last called."""
        ways, self.ways = self.ways, defaultdict(OneWay)
        return [
            Air(client, direction, one.frames, one.bytes, one.seconds)
            for (client, direction), one in ways.items()
        ]
