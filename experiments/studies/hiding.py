"""What hiding updates costs: ``python -m experiments.studies.hiding``.

Makes the real messages of one sum with the clients' own code, for several sizes of a sum, without
and with certificates, and prints a table in Markdown: bytes of each message, and milliseconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from client.secure import Hiding
from experiments.command import certs
from experiments.engines.folded.nodes import HeldStore
from protos import recast_v1_pb2 as pb
from recast_core.secure.levels import plan
from recast_core.secure.members import Identity, as_bits, own_identity
from recast_core.secure.shamir import threshold
from recast_core.wire.codec import encode

HEAD = (
    "| clients in a sum | needed | certificates | plain update | hidden update | opening down "
    "| opened up | roster down, once | key up, once | up, a round | down, a round | ms, a client |"
)
EXAMPLES, ROUND, TASK, BANK = 100, 3, 1, 0xABCDEF01


def identities(folder: Path, count: int) -> list[Identity]:
    """Certificates of one authority."""
    names = [f"edge-{number}" for number in range(count)]
    certs.init(folder, ["localhost"], names, force=False)
    return [
        own_identity(folder / f"{n}.key", folder / f"{n}.pem", folder / "ca.pem") for n in names
    ]


def row(count: int, numbers: int, bits: int, own: Sequence[Identity | None]) -> str:
    """One size of a sum, as a row."""
    clients = [Hiding(HeldStore(), number, own[number]) for number in range(count)]
    keys = [pb.ToServer(keys=client.keep_keys(pb.KeyRequest())) for client in clients]
    roster = pb.KeyRequest(roster=2**60, members=[key.keys.member for key in keys])
    for client in clients:
        client.keep_keys(roster)
    levels = plan([EXAMPLES] * count, count, 2e-2, bits)
    told = pb.SecureRound(
        roster=2**60,
        nonce=time.time_ns(),
        width=levels.width,
        levels=levels.levels,
        step=levels.step,
        unit=levels.unit,
    )
    broadcast = pb.Broadcast(bank=BANK, task=TASK, round=ROUND, secure=told)
    about: dict[str, Any] = {"bank": BANK, "task": TASK, "round": ROUND}
    random = np.random.default_rng(0)
    offsets = random.normal(0, 0.05, (count, numbers)).astype(np.float32)
    plain = encode(offsets[0], bits)
    openly = pb.Update(
        examples=EXAMPLES, scale=plain.scale, coefficients=plain.data, **about
    )  # fmt: skip
    began = time.perf_counter()
    updates = []
    for client, mine in zip(clients, offsets, strict=True):
        salt, shares = client.seal(mine, EXAMPLES, broadcast)
        updates.append(pb.Update(examples=EXAMPLES, salt=salt, shares=shares, **about))
    length = len(updates[0].shares) // count
    opening = pb.Opening(
        roster=2**60,
        nonce=told.nonce,
        width=levels.width,
        survivors=as_bits(range(count), count),
        shares=b"".join(update.salt + update.shares[:length] for update in updates),
        **about,
    )
    opened = pb.ToServer(opened=clients[0].open(opening))
    milliseconds = 1000 * (time.perf_counter() - began) / count
    hidden, down = pb.ToServer(update=updates[0]).ByteSize(), pb.ToClient(open=opening).ByteSize()
    cells = (
        *(count, threshold(count), "yes" if own[0] else "no"),
        *(pb.ToServer(update=openly).ByteSize(), hidden, down, opened.ByteSize()),
        *(pb.ToClient(keys=roster).ByteSize(), keys[0].ByteSize()),
        *(hidden + opened.ByteSize(), down + told.ByteSize() + 3),
        f"{milliseconds:.1f}",
    )
    return "| " + " | ".join(f"{c:,}" if isinstance(c, int) else c for c in cells) + " |"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numbers", type=int, default=48)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--sizes", type=int, nargs="+", default=[3, 5, 10, 20, 32])
    given = parser.parse_args()
    print(HEAD)
    print("|---" * HEAD.count(" | ") + "|---|")
    with tempfile.TemporaryDirectory() as folder:
        own = identities(Path(folder), max(given.sizes))
        for certified in (False, True):
            for size in given.sizes:
                members = own[:size] if certified else [None] * size
                print(row(size, given.numbers, given.bits, members), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
