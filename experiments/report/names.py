"""What a report calls clients, and what carried their messages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from sqlalchemy import select

from server.record.registry import Registry
from server.record.tables import LedgerEntry

# Ids from this length on are random numbers, which nobody can tell apart.
_LONG_ID = 10
_CARRIERS = {"serve": "lean link", "simulate": "simulated", "measure": "measured here"}
# What `recast serve` goes over in place of its own link.
_INSTEAD = {"--mqtt": "MQTT", "--lorawan": "LoRaWAN"}


def of_flower(command: str) -> bool:
    """Whether a process of Flower's is what was recorded; else it is ours, or somebody's Python."""
    return PurePath((command.split() or [""])[0]).name.startswith(("flwr", "flower"))


def transport_of(command: str, config: Mapping[str, Any]) -> str:
    """What carried a run's messages, by the command and the settings that were recorded."""
    words = command.replace("=", " ").split()
    found = next((_CARRIERS[word] for word in words if word in _CARRIERS), "")
    if of_flower(command):
        found = "Flower"
    elif not found:  # a script or a notebook: only simulated clients are counted beforehand
        found = _CARRIERS["simulate" if config.get("clients") else "serve"]
    if found == "lean link":
        found = next((name for option, name in _INSTEAD.items() if option in words), found)
    if found == "simulated" and "--engine" in words[:-1]:
        found = f"simulated, {words[words.index('--engine') + 1]}"
    return found


def client_labels(registry: Registry, run: int) -> dict[str, str]:
    """What to call each client: its name, the number of a simulated one, or its place among all."""
    query = select(LedgerEntry.client).where(LedgerEntry.run == run).distinct()
    with registry.reading() as session:
        found = set(session.scalars(query))
    found |= {refusal.client for refusal in registry.refusals(run)}
    found |= {share.client for share in registry.shares(run)}
    names = registry.client_names(run)
    labels = {}
    for place, client in enumerate(sorted(found, key=lambda c: (len(c), c)), start=1):
        number = client if len(client) < _LONG_ID else str(place)
        labels[client] = names.get(client) or (f"client {number}" if client.isdecimal() else client)
    return labels
