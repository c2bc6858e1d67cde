"""A client's part in a hidden sum: seal its update for the members, and open their sum once.

The key is made once and kept in the client's store, with the rosters that the server brought and
what was last opened. What cannot be believed is refused.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from client.residuals import Store
from protos import recast_v1_pb2 as pb
from recast_core.privacy.noise import Uniform, secure_uniform
from recast_core.secure.channel import (
    KEY_BYTES,
    SALT_BYTES,
    TAG_BYTES,
    ForgedError,
    proof,
    public_key,
    seal,
    unseal,
)
from recast_core.secure.field import WIDTHS, Field
from recast_core.secure.levels import Levels, levels_of
from recast_core.secure.members import (
    FEWEST,
    MOST,
    DistrustError,
    Identity,
    announced,
    as_bits,
    check_roster,
    check_size,
    context_of,
    survivors_of,
)
from recast_core.secure.shamir import add, share, threshold
from recast_core.wire.codec import Vector
from recast_core.wire.messages import RefusedError

# So many rosters are kept: of tasks that are learned at once.
_SLOTS = 4
_OPENED = struct.Struct(">Q32s")  # the nonce, and the digest of what was opened under it
_Roster = Sequence[pb.SecureMember]


class RosterError(RefusedError):
    """A roster that is not here, or that this client does not trust."""


class ContradictionError(RefusedError):
    """A request that contradicts one that was answered."""


@dataclass(frozen=True)
class Hiding:
    """What one client needs to take part.

    Attributes:
        store: where key, rosters and what was opened are kept.
        number: of the client; others may keep theirs in the same folder.
        identity: its certificate; without one it believes the server about the others' keys.
        least: clients that any sum with its update must be of.
    """

    store: Store
    number: int
    identity: Identity | None
    least: int = FEWEST

    def keep_keys(self, request: pb.KeyRequest) -> pb.KeyReply:
        """Tell this client's key, prove that it has it, or keep the roster that came.

        Raises:
            RosterError: one in which this client cannot hide.
            RefusedError: a challenge that is no key.
            RecastError: it cannot be written.
        """
        public = public_key(self._private)
        if request.challenge:
            return self._proof(public, request.challenge)
        if not any(member.public == public for member in request.members):
            # Asked for it, or the server has one that this client has lost.
            least = self.least if self.least > FEWEST else 0
            return pb.KeyReply(member=announced(public, self.identity), least=least)
        try:
            check_roster(request.members, public, self.identity, self.least)
        except DistrustError as error:
            raise RosterError("roster", str(error)) from error
        self.store.write(self._named(request.roster), request.SerializeToString())
        return pb.KeyReply(roster=request.roster)

    def _proof(self, public: bytes, challenge: bytes) -> pb.KeyReply:
        try:
            proved = proof(self._private, challenge)
        except ForgedError as error:
            raise RefusedError("malformed", f"a challenge that is no key: {error}") from error
        return pb.KeyReply(member=announced(public, self.identity), proof=proved)

    def seal(
        self,
        offsets: Vector,
        examples: int,
        broadcast: pb.Broadcast,
        uniform: Uniform | None = None,
    ) -> tuple[bytes, bytes]:
        """Salt and shares of offsets ``[D]`` from the broadcast, weighted by ``examples``.

        With this client's part of the noise that the broadcast names, if any, from ``uniform`` or
        else from what nobody can repeat.

        Raises:
            RefusedError: the request cannot be believed, or contradicts what was opened.
            CodecError: offsets that are not finite.
        """
        told = broadcast.secure
        members = self._roster(told.roster)
        levels = _levels(told, len(members))
        if told.nonce <= self._opened(broadcast.task)[0]:
            raise ContradictionError("contradicts", "a sum that was opened takes no more updates")
        term = levels.term(offsets, examples)
        if levels.deviation:
            try:
                term = term + levels.noise(uniform or secure_uniform(), len(members), len(term))
            except ValueError as error:
                raise RefusedError("malformed", str(error)) from error
        secret = levels.field.wrap(term)
        shares = share(levels.field, secret, len(members), threshold(len(members)))
        private, salt = self._private, secrets.token_bytes(SALT_BYTES)
        context = _context(members, broadcast, told.nonce)
        sealed = [
            seal(private, member.public, salt, context, levels.field.pack(own))
            for member, own in zip(members, shares, strict=True)
        ]
        return salt, b"".join(sealed)

    def open(self, request: pb.Opening) -> pb.Opened:
        """A share of the sum; or whose sealed shares are forged.

        Raises:
            RefusedError: the request cannot be believed, or contradicts what was opened.
            RecastError: what was opened cannot be written.
        """
        members = self._roster(request.roster)
        reply = pb.Opened(bank=request.bank, task=request.task, round=request.round)
        try:
            places = survivors_of(request.survivors, len(members))
        except DistrustError as error:
            raise RosterError("roster", str(error)) from error
        field, records = _records(request, len(places))
        private, context = self._private, _context(members, request, request.nonce)
        terms, forged = [], []
        for place, (salt, sealed) in zip(places, records, strict=True):
            try:
                content = unseal(private, members[place].public, salt, context, sealed)
                terms.append(field.unpack(content, len(content) // field.width))
            except ValueError:
                forged.append(place)
        if forged:
            reply.forged = as_bits(forged, len(members))
            return reply
        self._open_once(request)
        reply.share = field.pack(add(field, np.stack(terms)))
        return reply

    def _open_once(self, request: pb.Opening) -> None:
        """Note what is opened before it is told: with another set it would tell a difference."""
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        last = self._opened(request.task)
        if last == (request.nonce, digest):
            return
        if request.nonce <= last[0]:
            raise ContradictionError(
                "contradicts",
                f"the sum of round {request.round} was opened already, for other survivors or "
                "before another: a server whose clock was set back must wait for it",
            )
        self.store.write(
            f"secure-opened-{self.number}-{request.task}", _OPENED.pack(request.nonce, digest)
        )

    def _opened(self, task: int) -> tuple[int, bytes]:
        """Nonce and digest of what was last opened of a task."""
        content = self.store.read(f"secure-opened-{self.number}-{task}")
        if not content:
            return 0, b""
        if len(content) != _OPENED.size:  # fail closed
            raise ContradictionError("contradicts", "the note of what was opened is damaged")
        nonce, digest = _OPENED.unpack(content)
        return nonce, digest

    @property
    def _private(self) -> bytes:
        """The key, made where there is none."""
        name = f"secure-key-{self.number}"
        private = self.store.read(name)
        if len(private) != KEY_BYTES:
            private = secrets.token_bytes(KEY_BYTES)
            self.store.write(name, private, private=True)
        return private

    def _named(self, roster: int) -> str:
        return f"secure-roster-{self.number}-{roster % _SLOTS}"

    def _roster(self, roster: int) -> _Roster:
        """The members of a roster that was kept.

        Raises:
            RosterError: it is not here, or was kept before this client wanted larger sums.
        """
        try:
            kept = pb.KeyRequest.FromString(self.store.read(self._named(roster)))
        except ValueError:
            kept = pb.KeyRequest()
        own = public_key(self._private)
        if kept.roster != roster or all(member.public != own for member in kept.members):
            raise RosterError("roster", f"roster {roster:x} is not here")
        try:
            check_size(len(kept.members), self.least)
        except DistrustError as error:
            raise RosterError("roster", str(error)) from error
        return kept.members


def _levels(told: pb.SecureRound, members: int) -> Levels:
    """How to count, if nothing can overflow."""
    sane = told.width in WIDTHS and all(
        0 < number < math.inf for number in (told.levels, told.step, told.unit)
    )
    sane = sane and 0 <= told.deviation < math.inf
    levels = levels_of(told)
    if not sane or 2 * told.levels * levels.heaviest >= Field(told.width).prime or members > MOST:
        raise RefusedError("malformed", "numbers in which a hidden sum cannot be counted")
    return levels


def _records(request: pb.Opening, count: int) -> tuple[Field, list[tuple[bytes, bytes]]]:
    """The field, and each survivor's salt and sealed share."""
    if request.width not in WIDTHS:
        raise RefusedError("malformed", f"numbers of {request.width} bytes")
    length, rest = divmod(len(request.shares), count)
    sealed = length - SALT_BYTES - TAG_BYTES
    if rest or sealed <= 0 or sealed % request.width:
        raise RefusedError("malformed", f"{len(request.shares)} bytes of {count} sealed shares")
    starts = range(0, len(request.shares), length)
    records = [request.shares[start : start + length] for start in starts]
    return Field(request.width), [(r[:SALT_BYTES], r[SALT_BYTES:]) for r in records]


def _context(members: _Roster, about: pb.Broadcast | pb.Opening, nonce: int) -> bytes:
    return context_of(members, about.bank, about.task, about.round, nonce)
