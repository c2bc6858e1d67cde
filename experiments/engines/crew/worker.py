"""A worker process on this machine: ``python -m experiments.engines.crew.worker FD LIFELINE``.

It reads pickled messages from the socket that its parent gave it, and ends with the parent: a
pipe that only the parent holds open says when that is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.engines.crew.base import Item, short_of_memory
from experiments.engines.crew.workshop import Workshop
from recast_core.pulse import listening

_PAUSE = 0.2


class _Telling:
    """Tells the parent how many images were shown, now and then."""

    def __init__(self, parent: Connection) -> None:
        self._parent, self._lock = parent, threading.Lock()
        self._images, self._told = 0, time.monotonic()

    def about(self, task: str, round_: int) -> None:
        """See ``recast_core.pulse.Listener``: the parent knows."""

    def began(self, what: str, images: int) -> None:
        """See ``recast_core.pulse.Listener``: the parent knows."""

    def advanced(self, images: int) -> None:
        """So many more."""
        with self._lock:
            self._images += images
            if time.monotonic() - self._told >= _PAUSE:
                self._tell()

    def rest(self) -> None:
        """Tell what has not been told."""
        with self._lock:
            self._tell()

    def _tell(self) -> None:
        if self._images:
            self._parent.send(("advanced", self._images))
        self._images, self._told = 0, time.monotonic()


def read_arrays(folder: Path) -> Mapping[str, NDArray[Any]]:
    """The arrays in a folder, mapped into memory: all workers share what they look at."""
    return {file.stem: np.load(file, mmap_mode="c") for file in sorted(folder.glob("*.npy"))}


def serve(parent: Connection) -> None:
    """Do what the parent says until it closes the connection."""
    telling = _Telling(parent)
    shop: Workshop | None = None
    with listening(telling):
        while True:
            try:
                kind, content = parent.recv()
            except (EOFError, OSError):
                return
            try:
                match kind:
                    case "post":
                        shop = Workshop(content)
                    case "place":
                        item, folder = content
                        arrays = read_arrays(Path(folder)) if folder else {}
                        assert shop is not None
                        shop.place(Item(item.kind, item.name, item.fields, arrays))
                    case _:
                        assert shop is not None
                        found = shop.work(content)
                        telling.rest()
                        parent.send(("done", found))
            except Exception as error:
                which = "memory" if short_of_memory(error) else "failed"
                parent.send((which, traceback.format_exc()))


def main() -> None:
    """The process."""
    parent, lifeline = Connection(int(sys.argv[1])), int(sys.argv[2])

    def follow() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    serve(parent)
    os._exit(0)


if __name__ == "__main__":
    main()
