"""What simulated clients remember between messages, each thing held once for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from protos import recast_v1_pb2 as pb
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.start import Start


@dataclass
class HeldStore:
    """What ``client.residuals`` keeps, in memory."""

    content: dict[str, bytes] = field(default_factory=dict)

    def read(self, name: str) -> bytes:
        """See ``client.residuals.Store``."""
        return self.content.get(name, b"")

    def write(self, name: str, content: bytes) -> None:
        """See ``client.residuals.Store``."""
        self.content[name] = content


@dataclass
class SimulatedNode:
    """One simulated client.

    Attributes:
        number: of its partition.
        banks: the identities of the banks that it has.
        tasks: those that it was told of, by number; shared by nodes that were told the same.
        residuals: what its updates have not said yet.
    """

    number: int
    banks: set[bytes] = field(default_factory=set)
    tasks: dict[int, pb.Task] = field(default_factory=dict)
    residuals: HeldStore = field(default_factory=HeldStore)


@dataclass
class Banks:
    """Every bank, and method's start, that any node has, held once."""

    _by_identity: dict[bytes, Start] = field(default_factory=dict)
    _last: tuple[bytes, bytes] | None = None

    def receive(self, content: bytes, sha256: bytes) -> Start:
        """Verify a bank as ``client.bank_cache`` does; the same bytes are verified once.

        Raises:
            RecastError: they are no bank, or another bank.
        """
        if self._last != (content, sha256):
            bank = TemplateBank.from_bytes(content, name="the bank that was sent")
            if bank.sha256 != sha256:
                raise RecastError(
                    f"the bank that was sent is {bank.prefix:08x}, {sha256[:4].hex()} was "
                    "announced: check the server's version"
                )
            self.hold(bank)
            self._last = content, sha256
        return self._by_identity[sha256]

    def hold(self, bank: Start) -> None:
        """Keep what was made here."""
        self._by_identity[bank.sha256] = bank

    def of(self, node: SimulatedNode, prefix: int) -> Start | None:
        """The node's bank whose identity starts with ``prefix``."""
        for sha256 in sorted(node.banks):
            if int.from_bytes(sha256[:4], "big") == prefix:
                return self._by_identity[sha256]
        return None
