"""The measurement as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TASKS = (
    ("method", "method"),
    ("transport", "transport"),
    ("task", "task"),
    ("rounds", "rounds"),
    ("accuracy", "accuracy"),
    ("payload_up", "payload up"),
    ("payload_down", "payload down"),
    ("message_up", "message up"),
    ("message_down", "message down"),
    ("wire_up", "wire up"),
    ("wire_down", "wire down"),
    ("bank_down", "bank down"),
)
_ROUNDS = (
    ("method", "method"),
    ("transport", "transport"),
    ("task", "task"),
    ("round", "round"),
    ("what", "what"),
    ("wire_up", "wire up"),
    ("wire_down", "wire down"),
    ("seconds", "seconds"),
)
_RATIOS = (
    ("method", "method"),
    ("task", "task"),
    ("round", "round"),
    ("what", "what"),
    ("up", "up"),
    ("down", "down"),
    ("both", "both"),
)
_CONNECTION = (
    ("method", "method"),
    ("transport", "transport"),
    ("what", "what"),
    ("wire_up", "wire up"),
    ("wire_down", "wire down"),
    ("seconds", "measured over, s"),
)


def print_tables(report: Mapping[str, Any]) -> None:
    """Print what ``recast measure`` found; bytes are those of one client."""
    print("Bytes per client and task\n")
    _print(_TASKS, report["rows"])
    if report["rounds"]:
        print("\nBytes per client and round on the wire, idle traffic during the round included\n")
        _print(_ROUNDS, report["rounds"])
    if report["ratios"]:
        print("\nWire bytes over flower divided by those over link\n")
        _print(_RATIOS, report["ratios"])
    if report["connection"]:
        print("\nBytes per client on the wire besides (idle hour: extrapolated from the window)\n")
        _print(_CONNECTION, report["connection"])


def _print(columns: Sequence[tuple[str, str]], rows: Sequence[Mapping[str, Any]]) -> None:
    print("| " + " | ".join(title for _, title in columns) + " |")
    print(
        "|"
        + "|".join("---" if key in ("method", "transport", "task", "what") else "--:"
                   for key, _ in columns)
        + "|"
    )  # fmt: skip
    for row in rows:
        print("| " + " | ".join(_cell(key, row[key]) for key, _ in columns) + " |")


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "accuracy":
        return f"{100 * value:.1f} %"
    if isinstance(value, float):
        return f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def ratios(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many times the bytes of the lean link Flower needs, for what ran over both.

    Args:
        rounds: entries with ``method``, ``transport``, ``task``, ``round``, ``what``, ``wire_up``
            and ``wire_down``.

    Returns:
        An entry for each round and evaluation, with ``up``, ``down`` and ``both``.
    """
    keys = ("method", "task", "round", "what")
    flower, link = (
        {tuple(one[key] for key in keys): one for one in rounds if one["transport"] == transport}
        for transport in ("flower", "link")
    )
    found = []
    for key, own in link.items():
        if key not in flower:
            continue
        much = flower[key]
        little = {"up": own["wire_up"], "down": own["wire_down"]}
        little["both"] = sum(little.values())
        big = {"up": much["wire_up"], "down": much["wire_down"]}
        big["both"] = sum(big.values())
        divided = {way: big[way] / little[way] if little[way] else None for way in little}
        found.append(dict(zip(keys, key, strict=True)) | divided)
    return found
