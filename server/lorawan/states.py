"""What each device has of a task's coefficients, and what is queued for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from protos import lorawan as wire
from recast_core.wire.codec import Encoded, Vector, decode, encode

LAST = 255


@dataclass
class Ask:
    """A question that waits for a device's answer.

    Attributes:
        key: names the message to the grid.
        kind: train or evaluate.
        task: its number.
        round: of it.
        vector: offsets from the bank's start, float32 ``[D]``.
        bits: of a number in a downlink.
        head: kind of head to evaluate with.
    """

    key: str
    kind: wire.Down
    task: int
    round: int
    vector: Vector
    bits: int
    head: int = 0


@dataclass(eq=False)
class DeviceState:
    """One device.

    Attributes:
        announced: what it has, by task.
        seq: of the state that it said it has.
        config: likewise.
        ask: that waits for its answer.
        queued: a downlink waits for its next uplink.
        seen: when it was last heard.
    """

    device: str
    announced: dict[int, wire.Announce] = field(default_factory=dict)
    seq: int = 0
    config: int = 0
    ask: Ask | None = None
    queued: bool = False
    seen: float = 0.0
    _states: dict[int, Vector] = field(default_factory=dict)
    _made: tuple[str, int, wire.Told] | None = None
    _last: int = 0

    def state(self) -> Vector:
        """The offsets that the device has, as it said last; none: the bank's start."""
        return self._states.get(self.seq, np.zeros(0, np.float32))

    def says(self, seq: int, config: int, now: float) -> None:
        """A frame of the device came."""
        self.seq, self.config, self.seen = seq, config, now
        # What came before the state that it has, it will not name again.
        newest = self._made[2].seq if self._made is not None else 0
        self._states = {n: s for n, s in self._states.items() if n in (seq, newest)}

    def next_frame(self, config: wire.Config) -> wire.Config | wire.Told | None:
        """What to queue: the configuration first, then the question; ``None`` for nothing."""
        ask = self.ask
        if ask is None:
            return None
        if self.config != config.number:
            return config
        base = self.seq if self.seq in self._states else 0
        if self._made is not None and self._made[:2] == (ask.key, base):
            return self._made[2]
        if self._made is not None and self._made[0] == ask.key and self.seq == self._made[2].seq:
            return self._made[2]
        before = self._states[base] if base else np.zeros_like(ask.vector)
        if not ask.vector.size:
            # The bank's start: nothing is said of it, and no state is needed.
            base, encoded, after = 0, Encoded(b"", 0.0), ask.vector
        else:
            before = before if before.size else np.zeros_like(ask.vector)
            encoded = encode(ask.vector - before, ask.bits)
            after = before + decode(encoded, len(ask.vector), ask.bits)
            if not encoded.scale:
                encoded = Encoded(b"", 0.0)
        self._last = self._last % LAST + 1
        told = wire.Told(
            ask.kind, config.number, ask.task, ask.round, base, self._last, ask.bits,
            encoded.scale, encoded.data, ask.head,
        )  # fmt: skip
        self._states[self._last] = after
        self._made = ask.key, base, told
        return told
