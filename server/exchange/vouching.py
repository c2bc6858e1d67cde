"""Whether a client's key for hidden sums is its own, as far as a grid can tell."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from protos import recast_v1_pb2 as pb


@runtime_checkable
class Vouching(Protocol):
    """A grid that knows which certificate each client has."""

    def why_not_of(self, node: int, member: pb.SecureMember) -> str:
        """Why other clients would not believe that a key is this node's; empty where they would."""
