"""How far a piece of work is, its rate, and what is left of it, in words."""

from __future__ import annotations

import time


class Work:
    """One piece of work: so many images to show to a network."""

    def __init__(self, what: str = "", images: int = 0) -> None:
        self.begin(what, images)

    def begin(self, what: str, images: int) -> None:
        """Other work begins."""
        self.what, self.images, self.shown = what, images, 0
        self._began = time.monotonic()

    def advance(self, images: int) -> None:
        """So many more images have been shown."""
        self.shown += images

    def share(self) -> float:
        """How much is done, 0 to 1; 0 where nobody knows how much there is."""
        return min(1.0, self.shown / self.images) if self.images else 0.0

    @property
    def rate(self) -> float:
        """Images in a second, 0 before the first."""
        return self.shown / max(time.monotonic() - self._began, 1e-3)

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take; ``None`` before that can be told."""
        if not self.images or self.share() < 0.02:
            return None
        return (time.monotonic() - self._began) * (1 - self.share()) / self.share()

    def line(self) -> str:
        """In words, e.g. ``training: 120 of 400 images, 31 images/s, 9 s left``."""
        if not self.what:
            return "working"
        if not self.images:
            return f"{self.what}: {self.shown:,} images" if self.shown else self.what
        text = f"{self.what}: {min(self.shown, self.images):,} of {self.images:,} images"
        if self.shown:
            text += f", {self.rate:,.{0 if self.rate >= 10 else 1}f}/s"
        return text if self.left is None else f"{text}, {clock(self.left)} left"


def clock(seconds: float) -> str:
    """A duration for people: ``9 s``, ``4 min 5 s``, ``2 h 7 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
