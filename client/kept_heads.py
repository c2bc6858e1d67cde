"""Earlier tasks' heads that a client was sent once, and keeps for the tasks after them."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from client.residuals import Store
from protos import recast_v1_pb2 as pb
from recast_core.start import Start
from recast_core.wire.kept_head import DEPLOYED, Kept, identity, kept_of, read_kept
from recast_core.wire.messages import RefusedError


def keep_head(store: Store, evaluation: pb.Broadcast) -> None:
    """Keep the head of an evaluation that says so, for later tasks.

    Raises:
        RecastError: it cannot be written.
        RefusedError: ``malformed``, the evaluation brings another head than it says.
    """
    if evaluation.HasField("kept") and evaluation.head:
        found = kept_of(evaluation)
        if found.id != evaluation.kept.id:
            raise RefusedError("malformed", "the head to keep is not the one that it says")
        _write(store, evaluation.bank, found)


def kept_head(store: Store, start: Start, broadcast: pb.Broadcast) -> Kept | None:
    """The classifier that the broadcast's task keeps; ``None`` where it is not here.

    A head that the broadcast brings is kept from now on.

    Raises:
        RefusedError: a head that cannot be, or another than the one that it is said to be.
        RecastError: it cannot be written.
    """
    if not broadcast.HasField("kept"):
        return DEPLOYED
    told = broadcast.kept
    if told.head:
        if identity(broadcast.bank, told) != told.id:
            raise RefusedError("malformed", "the head to keep is not the one that it says")
        found = read_kept(start, told)
        _write(store, broadcast.bank, told)
        return found
    content, there = store.read(_name(broadcast.bank, told.id)), pb.KeptHead()
    try:
        there.ParseFromString(content)
        # What a disk holds may be damaged, and is then as good as absent.
        if identity(broadcast.bank, there) == told.id:
            return read_kept(start, there)
    except (DecodeError, RefusedError):
        pass
    return None


def _write(store: Store, bank: int, kept: pb.KeptHead) -> None:
    content = kept.SerializeToString()
    if store.read(_name(bank, kept.id)) != content:
        store.write(_name(bank, kept.id), content)


def _name(bank: int, number: int) -> str:
    return f"head-{bank:08x}-{number:08x}"
