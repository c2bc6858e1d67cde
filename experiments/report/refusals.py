"""What a report says of answers that were refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from server.record.rows import OTHERS, Refusal


def refused(refusals: list[Refusal], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Reasons, most frequent first, each with its latest detail."""
    counts: Counter[str] = Counter()
    others: Counter[str] = Counter()
    clients: defaultdict[str, set[str]] = defaultdict(set)
    latest: dict[str, Refusal] = {}
    for refusal in refusals:
        counts[refusal.reason] += refusal.times
        if refusal.client == OTHERS:
            others[refusal.reason] = max(others[refusal.reason], refusal.times)
            latest.setdefault(refusal.reason, refusal)
        else:
            clients[refusal.reason].add(refusal.client)
            latest[refusal.reason] = refusal
    return [
        {
            "reason": reason,
            "count": count,
            "clients": len(clients[reason]) + others[reason],
            "last_client": latest[reason].client,
            "last_name": labels[latest[reason].client],
            "last_detail": latest[reason].detail,
        }
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
