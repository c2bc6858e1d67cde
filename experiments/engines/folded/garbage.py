"""Python's garbage collector, kept from looking through what a simulation holds all along."""

from __future__ import annotations

import gc


class Settled:
    """What greeting made for each client lives as long as the run, and is looked through no more.

    A collection takes as long as there are objects, and a round of a thousand clients starts
    several: a third of its time. `gc.freeze` takes what is there out of all later ones.
    """

    def __init__(self) -> None:
        """Leave everything alone where somebody else has frozen what is theirs."""
        self._mine = False
        self._free = gc.get_freeze_count() == 0

    def settle(self) -> None:
        """What is there now stays: collections leave it out from here on."""
        if self._free:
            gc.freeze()
            self._mine = True

    def restore(self) -> None:
        """Collections look at everything again."""
        if self._mine:
            gc.unfreeze()
            self._mine = False
