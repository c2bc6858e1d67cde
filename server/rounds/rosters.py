"""Who hides in whose sum: keys of clients, and the rosters that they keep before they train."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest

from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.secure.channel import KEY_BYTES, is_key, proof, public_key
from recast_core.secure.members import FEWEST, MOST
from recast_core.secure.shamir import threshold
from server.exchange.leniency import Leniency
from server.exchange.traffic import Reply, Topic, is_answer
from server.exchange.vouching import Vouching
from server.rounds.gathering import Exchange

logger = logging.getLogger("recast.server")
Group = tuple[int, ...]
# A certificate and its signature, with room to spare.
LONGEST_KEY = 8192
# A client that loses its key more often in a run is left out.
_LOSSES = 3


@dataclass
class Roster:
    """The groups of a round: nodes in their places, and who has kept its group's roster."""

    number: int
    groups: tuple[Group, ...]
    kept: set[int] = field(default_factory=set)


class Rosters:
    """Learns keys, forms groups, and has each client keep its group's roster.

    What a client has kept is not sent to it again: the rosters of a run whose clients stay the same
    travel once.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._keys: dict[int, pb.SecureMember] = {}
        self._known: dict[tuple[Group, ...], Roster] = {}
        # Clients that a sum must be of for a node to take part, as it says.
        self._least: dict[int, int] = {}
        self._warned: set[int] = set()
        # Who was found to announce a key that is another's.
        self._judged: set[tuple[int, bytes]] = set()
        self._losses: Counter[int] = Counter()
        self._sendings = Leniency(times=8, seconds=60.0)
        self._next = secrets.randbits(60)

    def form(
        self, grid: Grid, nodes: Sequence[int], topic: Topic, suspects: frozenset[int], parts: int
    ) -> Roster | None:
        """A roster that enough of ``nodes`` have kept, ``None`` where they are too few.

        Args:
            grid: the way to the clients.
            nodes: that would take part.
            topic: for the ledger.
            suspects: nodes of which one may have spoiled a sum; they are kept apart.
            parts: into how many groups to divide them, at least.
        """
        usable = sorted(nodes)
        while True:  # each time with fewer nodes, or one loss more
            self._learn_keys(grid, usable, topic)
            usable = [n for n in usable if n in self._keys and self._losses[n] <= _LOSSES]
            if len(usable) < FEWEST:
                break
            groups = self._groups(grid, usable, suspects, parts, topic)
            if not groups:
                return None
            roster = self._roster(groups)
            if not self._send(grid, roster, topic):
                continue
            short = {
                node
                for group in roster.groups
                if len(roster.kept & set(group)) < threshold(len(group))
                for node in group
                if node not in roster.kept
            }
            if not short:
                return roster
            usable = [node for node in usable if node not in short]
        for node in usable:
            detail = f"{len(usable)} clients are too few for a hidden sum: at least {FEWEST}"
            self._exchange.traffic.refuse(node, topic, "too-few", detail)
        return None

    def forget(self, node: int) -> None:
        """Nothing came of a node's part in a sum: it is sent its roster again, if not too often."""
        if self._sendings.grant(node):
            for roster in self._known.values():
                roster.kept.discard(node)

    def _groups(
        self,
        grid: Grid,
        nodes: Sequence[int],
        suspects: frozenset[int],
        parts: int,
        topic: Topic,
    ) -> tuple[Group, ...]:
        """The groups of a round, without nodes that want larger sums; none where too few are left.

        Where that many parts would leave nobody, fewer are made.
        """
        for count in range(parts, 0, -1):
            groups, small = self._willing(nodes, suspects, count)
            if groups:
                break
        for node, size in small.items():
            detail = (
                f"wants sums of {self._least[node]} clients or more, and {size} make one here: "
                "have more clients join, or lower its --least-sum"
            )
            self._exchange.traffic.refuse(node, topic, "least-sum", detail)
            if node not in self._warned:
                self._warned.add(node)
                self._exchange.traffic.tell(grid, node, f"no part in hidden sums: {detail}")
        return groups

    def _willing(
        self, nodes: Sequence[int], suspects: frozenset[int], parts: int
    ) -> tuple[tuple[Group, ...], dict[int, int]]:
        """Groups that all in them take part in, and how small a sum the others were to be in."""
        small: dict[int, int] = {}
        left = list(nodes)
        while len(left) >= FEWEST:
            groups = divided(left, suspects, parts)
            fewest = {node: threshold(len(group)) for group in groups for node in group}
            found = {node: size for node, size in fewest.items() if self._least[node] > size}
            if not found:
                return groups, small
            small |= found
            left = [node for node in left if node not in found]
        return (), small

    def _roster(self, groups: tuple[Group, ...]) -> Roster:
        if groups not in self._known:
            self._next += 1
            if len(self._known) >= 4:  # as many as a client keeps
                del self._known[next(iter(self._known))]
            self._known[groups] = Roster(self._next, groups)
        return self._known[groups]

    def _learn_keys(self, grid: Grid, nodes: Sequence[int], topic: Topic) -> None:
        body = pb.ToClient(keys=pb.KeyRequest())
        wanted = {node: body for node in nodes if node not in self._keys}
        for answer in self._ask(grid, wanted, topic):
            self._enter(grid, answer, topic)

    def _enter(self, grid: Grid, answer: Reply, topic: Topic) -> None:
        member = answer.body.keys.member
        if not is_key(member.public):
            # All who are told of it could seal nothing, and the run would end.
            detail = "no key that anybody can have: 32 bytes of X25519"
            self._exchange.traffic.refuse(answer.node, topic, "malformed", detail)
        elif isinstance(grid, Vouching) and (why := grid.why_not_of(answer.node, member)):
            # All who are told of it would take no part, and the run would end.
            self._exchange.traffic.refuse(answer.node, topic, "unsigned-key", why)
        elif self._is_its_own(grid, answer.node, member.public, topic):
            self._keys[answer.node] = member
            self._least[answer.node] = answer.body.keys.least

    def _is_its_own(self, grid: Grid, node: int, public: bytes, topic: Topic) -> bool:
        """Whether a key is a node's, and no other's; who announces another's is left out.

        All members of a sum know each other's keys. Who has announced one first need not have it.
        """
        holder = next(
            (other for other, known in self._keys.items() if known.public == public), node
        )
        if holder == node:
            return True
        loser, detail = node, "another client has the same key: give each its own cache folder"
        if (node, public) not in self._judged:
            proved = self._proved(grid, {holder, node}, public, topic)
            if len(proved) == 1:
                (loser,) = {holder, node} - proved
                detail = "the key that it announces is another client's"
            if proved:  # else neither had the time, or they are of a version that proves nothing
                self._judged.add((loser, public))
                self._exchange.traffic.tell(grid, loser, f"no part in hidden sums: {detail}")
        self._exchange.traffic.refuse(loser, topic, "same-key", detail)
        if loser == holder:
            self._drop(holder)
        return loser == holder

    def _proved(self, grid: Grid, nodes: Collection[int], public: bytes, topic: Topic) -> set[int]:
        """Of nodes those that have the private key of a public one."""
        privates = {node: secrets.token_bytes(KEY_BYTES) for node in sorted(nodes)}
        bodies = {
            node: pb.ToClient(keys=pb.KeyRequest(challenge=public_key(private)))
            for node, private in privates.items()
        }
        return {
            answer.node
            for answer in self._ask(grid, bodies, topic)
            if answer.node in privates
            and compare_digest(answer.body.keys.proof, proof(privates[answer.node], public))
        }

    def _drop(self, node: int) -> None:
        """Forget a node's key, and the rosters that it is in."""
        del self._keys[node]
        self._known = {
            groups: known
            for groups, known in self._known.items()
            if not any(node in group for group in groups)
        }

    def _send(self, grid: Grid, roster: Roster, topic: Topic) -> bool:
        """Have nodes keep a roster; false where it has grown old, as keys were lost."""
        bodies: dict[int, pb.ToClient] = {}
        for group in roster.groups:
            members = [self._keys[node] for node in group]
            body = pb.ToClient(keys=pb.KeyRequest(roster=roster.number, members=members))
            bodies |= {node: body for node in group if node not in roster.kept}
        sound = True
        for answer in self._ask(grid, bodies, topic):
            if answer.body.keys.roster == roster.number:
                roster.kept.add(answer.node)
                continue
            # It has lost the key that the others were told.
            sound = False
            self._count_loss(answer.node, topic)
            self._drop(answer.node)
            self._enter(grid, answer, topic)
        return sound

    def _count_loss(self, node: int, topic: Topic) -> None:
        self._losses[node] += 1
        if self._losses[node] > _LOSSES:
            detail = (
                f"it lost its key {self._losses[node]} times, each time with all others' rosters, "
                "and is in no hidden sum until the server starts again: give it a cache folder "
                "that stays"
            )
            self._exchange.traffic.refuse(node, topic, "key-lost", detail)

    def _ask(self, grid: Grid, bodies: Mapping[int, pb.ToClient], topic: Topic) -> list[Reply]:
        if not bodies:
            return []
        traffic = self._exchange.traffic
        messages = [traffic.send(node, body, topic, grid) for node, body in bodies.items()]
        replies = self._exchange.collector.ask(
            grid, messages, lambda reply: is_answer(reply, "keys", LONGEST_KEY), hurry=False
        )
        return list(traffic.receive(replies, topic, "keys", LONGEST_KEY))


def divided(nodes: Sequence[int], suspects: frozenset[int], parts: int) -> tuple[Group, ...]:
    """Groups of almost equal size, each of ``FEWEST`` to ``MOST``, suspects spread among them."""
    count = max(-(-len(nodes) // MOST), min(parts, len(nodes) // FEWEST))
    first = [node for node in nodes if node in suspects]
    ordered = first + [node for node in nodes if node not in suspects]
    # Suspects in halves: one group's sum clears one half of them.
    return tuple(tuple(sorted(ordered[place::count])) for place in range(count))
