"""What a report says of answers that were refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from server.record.rows import Refusal


def refused(refusals: list[Refusal], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Reasons, most frequent first, each with its latest detail."""
    counts = Counter(refusal.reason for refusal in refusals)
    clients: defaultdict[str, set[str]] = defaultdict(set)
    latest: dict[str, Refusal] = {}
    for refusal in refusals:
        clients[refusal.reason].add(refusal.client)
        latest[refusal.reason] = refusal
    return [
        {
            "reason": reason,
            "count": count,
            "clients": len(clients[reason]),
            "last_client": latest[reason].client,
            "last_name": labels[latest[reason].client],
            "last_detail": latest[reason].detail,
        }
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
