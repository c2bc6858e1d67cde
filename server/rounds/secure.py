"""Rounds whose updates are hidden: what is told before, and how the sums are opened after."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.secure.channel import SALT_BYTES, TAG_BYTES
from recast_core.secure.field import Numbers
from recast_core.secure.levels import Integers, Levels, told
from recast_core.secure.members import FEWEST, as_bits
from recast_core.secure.shamir import InconsistentError, combine, liars, threshold
from recast_core.wire.messages import RefusedError
from server.exchange.share import Share
from server.exchange.traffic import Topic, is_answer
from server.rounds.federation import Federation
from server.rounds.rosters import Group, Roster, Rosters
from server.rounds.state import TaskState
from server.rounds.summed import Summed, counting
from server.rounds.suspects import Suspects

logger = logging.getLogger("recast.server")


@dataclass(frozen=True)
class Hidden:
    """What a round of a task was asked with."""

    roster: Roster
    told: pb.SecureRound
    levels: Levels


@dataclass(frozen=True)
class Total:
    """A group's sum, and whether more shares than it takes agree on it."""

    numbers: Integers
    checked: bool


class SecureSums:
    """Asks for updates that only sums tell, and for the sums."""

    def __init__(self, federation: Federation, clock: Callable[[], int] = time.time_ns) -> None:
        """Prepare; ``clock`` makes each round's number greater than any before it."""
        self._federation = federation
        self._rosters = Rosters(federation.exchange)
        self._clock = clock
        self._nonce = 0
        self._hidden: dict[int, Hidden] = {}
        self._suspects = Suspects(federation)

    def prepare(
        self, grid: Grid, state: TaskState, shares: Mapping[int, Share]
    ) -> tuple[list[int], pb.SecureRound]:
        """The nodes that can hide their updates of a task, and what tells them how to."""
        federation, barred = self._federation, self._suspects.barred
        topic = Topic(state.name, state.round + 1)
        suspects = self._suspects.of(state)
        # Those who are not waited for would count as lost, and too many lost spoil a sum.
        overdue = federation.collector.overdue
        nodes = [node for node in shares if node not in barred]
        present = [node for node in nodes if node not in overdue]
        if len(present) >= FEWEST:
            back = [node for node in nodes if node in federation.collector.returning]
            nodes = present + back[: _spare(len(present))]
        roster = self._rosters.form(grid, nodes, topic, suspects, 2 if suspects else 1)
        self._hidden.pop(state.number, None)
        if roster is None:
            return [], pb.SecureRound()
        asked = [node for group in roster.groups for node in group]
        examples = [shares[node].train_examples for node in asked]
        largest = max(map(len, roster.groups))
        levels = counting(federation, state.number, topic.round, examples, largest)
        self._nonce = max(self._nonce + 1, self._clock())
        body = told(levels)
        body.roster, body.nonce = roster.number, self._nonce
        self._hidden[state.number] = Hidden(roster, body, levels)
        return sorted(roster.kept), body

    @property
    def longest(self) -> int:
        """Bytes that the message of a hidden update may have."""
        lengths = (
            len(group) * self._sealed(hidden.levels)
            for hidden in self._hidden.values()
            for group in hidden.roster.groups
        )
        return max(lengths, default=0) + 128

    def check(self, update: pb.Update, node: int, asked: int | None, share: Share | None) -> None:
        """Refuse an update that is not hidden as it was asked to be.

        Raises:
            RefusedError: with the reason that the ledger counts.
        """
        hidden = self._hidden.get(update.task)
        if asked is None or share is None or hidden is None:
            raise RefusedError("unknown-task", f"task {update.task} was not asked of this client")
        if asked != update.round:
            raise RefusedError("stale-round", f"round {update.round} came in round {asked}")
        if update.bank != self._federation.start.prefix:
            raise RefusedError("wrong-bank", f"bank {update.bank:08x} is another")
        if not 0 < update.examples <= share.train_examples:
            raise RefusedError(
                "too-many-examples",
                f"{update.examples} examples, {share.train_examples} were announced",
            )
        if update.coefficients or update.scale or update.started:
            raise RefusedError("malformed", "an update that is not hidden")
        members = len(_group_of(hidden.roster, node))
        wanted = SALT_BYTES, members * self._sealed(hidden.levels)
        if (len(update.salt), len(update.shares)) != wanted:
            raise RefusedError("wrong-length", f"{len(update.shares)} bytes of sealed shares")

    def open(self, grid: Grid, state: TaskState, updates: Mapping[int, pb.Update]) -> list[Summed]:
        """The sums of a task's groups; those that too few take part in, or that fail, are absent.

        Args:
            grid: the way to the clients.
            state: the task.
            updates: of the nodes that sent one, checked.
        """
        hidden = self._hidden.pop(state.number, None)
        if hidden is None:
            return []
        topic = Topic(state.name, state.round + 1)
        for node in hidden.roster.kept - set(updates):
            self._rosters.forget(node)
        groups = []
        for group in hidden.roster.groups:
            found = [node for node in group if node in updates]
            if len(found) < threshold(len(group)):
                logger.warning(
                    "round %d of task %s: %d of %d clients sent their part of a hidden sum, %d are "
                    "needed",
                    *(topic.round, state.name, len(found), len(group), threshold(len(group))),
                )
            else:
                groups.append((group, found))
        opened = self._ask(grid, hidden, state, groups, updates)
        summed = []
        for group, found in groups:
            total = self._combine(hidden, state, group, found, opened)
            if total is None:
                continue
            examples = {node: updates[node].examples for node in found}
            one = Summed(total.numbers, hidden.levels, examples)
            if not hidden.levels.is_plausible(total.numbers, one.weight):
                self._suspects.spoiled(state, group, "the sum is larger than its terms can be")
                continue
            self._suspects.clear(state, group, sure=total.checked)
            summed.append(one)
        return summed

    def _numbers(self, levels: Levels) -> int:
        """How many are added: a client's offsets, and what is counted beside them."""
        return self._federation.start.sent + levels.beside

    def _sealed(self, levels: Levels) -> int:
        return self._numbers(levels) * levels.width + TAG_BYTES

    def _ask(
        self,
        grid: Grid,
        hidden: Hidden,
        state: TaskState,
        groups: Sequence[tuple[Group, list[int]]],
        updates: Mapping[int, pb.Update],
    ) -> dict[int, pb.Opened]:
        """What each survivor says of its group's sum."""
        traffic, topic = self._federation.traffic, Topic(state.name, state.round + 1)
        length, messages = self._sealed(hidden.levels), []
        for group, found in groups:
            survivors = as_bits([group.index(node) for node in found], len(group))
            for node in found:
                start = group.index(node) * length
                sealed = (
                    updates[one].salt + updates[one].shares[start : start + length] for one in found
                )
                opening = pb.Opening(
                    bank=self._federation.start.prefix,
                    task=state.number,
                    round=topic.round,
                    roster=hidden.roster.number,
                    nonce=hidden.told.nonce,
                    width=hidden.levels.width,
                    survivors=survivors,
                    shares=b"".join(sealed),
                )
                messages.append(traffic.send(node, pb.ToClient(open=opening), topic))
        replies = self._federation.collector.ask(
            grid, messages, lambda reply: is_answer(reply, "opened", length + 128)
        )
        asked = {node for _, found in groups for node in found}
        wanted = self._federation.start.prefix, state.number, topic.round
        opened: dict[int, pb.Opened] = {}
        for answer in traffic.receive(replies, topic, "opened", length + 128):
            told = answer.body.opened
            if (told.bank, told.task, told.round) != wanted:
                detail = f"a share of round {told.round} of task {told.task}"
                traffic.refuse(answer.node, topic, "stale-round", detail)
            elif answer.node in asked:
                opened[answer.node] = told
        return opened

    def _combine(
        self,
        hidden: Hidden,
        state: TaskState,
        group: Group,
        found: Sequence[int],
        answers: Mapping[int, pb.Opened],
    ) -> Total | None:
        """The sum of a group's integers, ``None`` where it cannot be told."""
        traffic, topic = self._federation.traffic, Topic(state.name, state.round + 1)
        field, needed = hidden.levels.field, threshold(len(group))
        shares: dict[int, Numbers] = {}
        complaints: dict[int, bytes] = {}
        for node in found:
            opened = answers.get(node)
            if opened is None:
                continue
            if opened.forged:
                complaints[node] = opened.forged
                continue
            try:
                own = field.unpack(opened.share, self._numbers(hidden.levels))
            except ValueError as error:
                traffic.refuse(node, topic, "malformed", str(error))
            else:
                shares[group.index(node)] = own
        doubted = self._suspects.unreadable(state, group, found, complaints)
        if len(shares) < needed:
            logger.warning(
                "round %d of task %s: %d of %d clients helped to open a hidden sum, %d are needed",
                *(topic.round, state.name, len(shares), len(group), needed),
            )
            if doubted:
                self._suspects.spoiled(
                    state, tuple(doubted), "some say that others sealed what is no share"
                )
            return None
        try:
            total = combine(field, shares, needed)
        except InconsistentError as error:
            self._suspects.spoiled(state, group, str(error))
            return None
        for place in liars(field, shares, needed):
            traffic.refuse(group[place], topic, "lying-share", "its share of the sum is wrong")
        return Total(field.centred(total), len(shares) > needed)


def _spare(present: int) -> int:
    """How many more may be in a sum without being missed, if all that are present open it."""
    more = 0
    while threshold(present + more + 1) <= present:
        more += 1
    return more


def _group_of(roster: Roster, node: int) -> Group:
    return next(group for group in roster.groups if node in group)
