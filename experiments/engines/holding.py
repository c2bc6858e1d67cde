"""What simulated clients still hold when a run goes on in another process."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from client.bank_cache import BankCache
from recast_core.files import write_atomically
from recast_core.start import Start
from server.record.ledger import Ledger
from server.record.registry import Registry

_NUMBERED = re.compile(r"client (\d+)")


def holders(registry: Registry, run: int, start: Start) -> list[int]:
    """The partitions whose clients were sent the whole bank, as the run's ledger has it.

    A client of the link has the bank in a file, and is not sent it again when its server comes
    back; one that is simulated has nothing but this record.
    """
    size, names = len(start.to_bytes()), registry.client_names(run)
    found = set()
    for client, sent in Ledger(registry).deliveries(run).items():
        # A node of ours is numbered from 1, and so is what one of Flower's is called.
        match = _NUMBERED.fullmatch(names.get(client, f"client {client}"))
        if match and sent >= size:
            found.add(int(match[1]) - 1)
    return sorted(found)


def place(caches: Path, start: Start, numbers: Iterable[int]) -> None:
    """Put the bank where these clients look for it: each in a folder of its own in ``caches``.

    Raises:
        RecastError: the folder cannot be written.
    """
    content = caches / "bank"
    for number in numbers:
        path = BankCache(caches / str(number)).path(start.sha256)
        if not content.exists():
            write_atomically(content, start.to_bytes())
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.symlink_to(content)
