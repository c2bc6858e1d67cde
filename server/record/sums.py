"""A ledger of a large fleet: some clients' rows of each round, and the sums of all others."""

from __future__ import annotations

from collections.abc import Iterable

from server.record.rows import OTHERS, Direction, Kind, Layer, LedgerRow, Refusal

# Of so many clients of each round all rows stay, and so many refusals of each kind.
SAMPLE = 20
_Round = tuple[str | None, int]
_Key = tuple[str | None, int, Direction, Kind, Layer]


class Sums:
    """Rows that are summed as they come, so that memory does not grow with the fleet.

    The rows of the first ``SAMPLE`` clients of each round and task stay as they are, and so do
    banks', which come once for each client and say who has it. Of all others the bytes, the count
    of messages and the longest are kept for each way, kind and layer: any sum of bytes that does
    not ask for clients is that of the full ledger.
    """

    def __init__(self) -> None:
        """Nothing has been counted."""
        self._rows: list[LedgerRow] = []
        self._clients: dict[_Round, set[str]] = {}
        self._rest: dict[_Key, tuple[int, int, int]] = {}

    def add(self, rows: Iterable[LedgerRow]) -> None:
        """Count rows."""
        for row in rows:
            if row.kind == "bank" or self._stays(row):
                self._rows.append(row)
                continue
            key = row.task, row.round, row.direction, row.kind, row.layer
            size, messages, longest = self._rest.get(key, (0, 0, 0))
            self._rest[key] = size + row.bytes, messages + 1, max(longest, row.bytes)

    def _stays(self, row: LedgerRow) -> bool:
        clients = self._clients.setdefault((row.task, row.round), set())
        if row.client in clients:
            return True
        if len(clients) == SAMPLE:
            return False
        clients.add(row.client)
        return True

    def drain(self) -> list[LedgerRow]:
        """What has been counted, which is counted no more."""
        found = self._rows + [
            LedgerRow(task, round_, OTHERS, direction, kind, layer, size, messages, longest)
            for (task, round_, direction, kind, layer), (size, messages, longest) in (
                self._rest.items()
            )
        ]
        self._rows, self._clients, self._rest = [], {}, {}
        return found


def summed(refusals: Iterable[Refusal]) -> list[Refusal]:
    """The first ``SAMPLE`` refusals of a round, task and reason each, and the others' number."""
    found: list[Refusal] = []
    counts: dict[tuple[str | None, int, str], int] = {}
    for refusal in refusals:
        key = refusal.task, refusal.round, refusal.reason
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= SAMPLE:
            found.append(refusal)
    for (task, round_, reason), count in counts.items():
        if (more := count - SAMPLE) > 0:
            found.append(Refusal(OTHERS, task, round_, reason, f"and {more} more", more))
    return found
