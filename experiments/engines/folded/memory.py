"""Freed memory that stays with the process: a step frees what the next one asks for again."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENAS = -1, -3, -8
# The most that glibc takes. Larger blocks are mapped, and every page of them is faulted in anew.
_LARGEST = 32 << 20
_KEPT = 512 << 20


def keep_freed() -> None:
    """Let the C library keep up to half a gibibyte for reuse, where it is glibc.

    Activations of a few megabytes are otherwise given back to the system and taken again several
    times a step: two thousand page faults a client, a tenth of its time.
    """
    if not sys.platform.startswith("linux"):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _LARGEST)
        set_option(_TRIM_THRESHOLD, _KEPT)
        # Arenas of other threads are cut in pieces that go back whole, whatever is said above.
        set_option(_ARENAS, 1)
