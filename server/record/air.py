"""What a run took of the air, where its devices send frames: see ``docs/lorawan.md``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.record.history import History
from server.record.rows import Air
from server.record.tables_beside import AirEntry

DAY = 86_400.0
DEVICE_DUTY, GATEWAY_DUTY = 0.01, 0.1


def add_air(session: Session, run: int, rows: Iterable[Air]) -> None:
    """Add to what the run has taken so far."""
    for row in rows:
        known = session.get(AirEntry, (run, row.client, row.direction))
        if known is None:
            values = {name: getattr(row, name) for name in Air.__slots__}
            session.add(AirEntry(run=run, **values))
            continue
        known.frames += row.frames
        known.bytes += row.bytes
        known.seconds += row.seconds


def air_of(history: History, run: int) -> list[Air]:
    """What each device of a run took, either way; nothing where nothing was on the air."""
    with history.reading() as session:
        found = session.scalars(select(AirEntry).where(AirEntry.run == run))
        return [Air(one.client, one.direction, one.frames, one.bytes, one.seconds) for one in found]


def account(rows: Sequence[Air]) -> dict[str, float]:
    """Totals, and the days that the duty cycles of devices and gateway demand at least."""
    ups = [row for row in rows if row.direction == "up"]
    downs = [row for row in rows if row.direction == "down"]
    device = max((one.seconds for one in ups), default=0.0) / DEVICE_DUTY
    gateway = sum(one.seconds for one in downs) / GATEWAY_DUTY
    return {
        "devices": len(ups),
        "frames_up": sum(one.frames for one in ups),
        "frames_down": sum(one.frames for one in downs),
        "bytes_up": sum(one.bytes for one in ups),
        "bytes_down": sum(one.bytes for one in downs),
        "airtime_up": round(sum(one.seconds for one in ups), 3),
        "airtime_down": round(sum(one.seconds for one in downs), 3),
        "days_by_duty_cycle": round(max(device, gateway) / DAY, 4),
    }
