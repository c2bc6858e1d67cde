"""Hidden sums on the server: exact, recovered, asked again, and spoiled by nobody for long."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pytest
from flwr.app import Error

from client.secure import Hiding
from experiments.engines.folded.nodes import HeldStore
from protos import recast_v1_pb2 as pb
from recast_core import RecastError
from recast_core.secure.channel import public_key
from recast_core.secure.field import Field, Numbers
from recast_core.secure.levels import Levels
from recast_core.secure.members import FEWEST, MOST
from recast_core.secure.shamir import share, threshold
from recast_core.wire.messages import RefusedError
from server.record.ledger import Ledger
from server.record.suspected import suspected
from server.rounds.rosters import divided

if TYPE_CHECKING:
    from conftest import Federation

Make = Callable[..., "Federation"]
D = 6
AWAY = Error(1, "away")


class Client:
    """A script that hides updates as a client does, but for what a test has it do otherwise."""

    def __init__(self, number: int, examples: int = 40, **otherwise: Callable[..., object]) -> None:
        self.number, self.examples, self.otherwise = number, examples, otherwise
        self.hiding = Hiding(HeldStore(), number, None)
        self.told: list[pb.SecureRound] = []

    @property
    def offsets(self) -> np.ndarray:
        return np.linspace(-0.1, 0.1, D, dtype=np.float32) * self.number

    def __call__(self, question: pb.ToClient, right: pb.ToServer) -> object:
        kind = str(question.WhichOneof("body"))
        reply = self.right(question, right)
        return self.otherwise[kind](question, reply) if kind in self.otherwise else reply

    def right(self, question: pb.ToClient, right: pb.ToServer) -> pb.ToServer:
        match question.WhichOneof("body"):
            case "keys":
                return pb.ToServer(keys=self.hiding.keep_keys(question.keys))
            case "open":
                return pb.ToServer(opened=self.hiding.open(question.open))
            case "train":
                asked = question.train
                self.told.append(asked.secure)
                salt, shares = self.hiding.seal(self.offsets, self.examples, asked)
                update = pb.Update(
                    bank=asked.bank, task=asked.task, round=asked.round,
                    examples=self.examples, salt=salt, shares=shares,
                )  # fmt: skip
                return pb.ToServer(update=update)
            case _:
                return right


def fleet(count: int, **otherwise: dict[int, Callable[..., object]]) -> dict[int, Client]:
    """Clients from 1, some of which do otherwise when asked ``train``, ``open`` or ``keys``."""
    return {
        n: Client(n, **{kind: who[n] for kind, who in otherwise.items() if n in who})
        for n in range(1, count + 1)
    }


def away(question: pb.ToClient, reply: pb.ToServer) -> object:
    return AWAY


def mean_of(clients: list[Client]) -> np.ndarray:
    told = clients[0].told[-1]
    levels = Levels(told.width, told.levels, told.step, told.unit)
    weights = [levels.weight(client.examples) for client in clients]
    total = sum(w * levels.count(c.offsets) for w, c in zip(weights, clients, strict=True))
    return levels.mean(total, sum(weights))


def check_mean(made: Federation, clients: list[Client], round_: int = 1) -> None:
    """The round moved by the mean of just these, to what a broadcast of 16 bits can carry."""
    assert made.registry.rounds(made.run, 1)[round_ - 1].clients == len(clients)
    np.testing.assert_allclose(
        made.moved(1, round_), round_ * mean_of(clients), rtol=2e-3, atol=1e-6
    )


def test_the_round_is_the_mean_of_all_and_no_update_is_sent_openly(federation: Make) -> None:
    clients = fleet(5)
    made = federation(nodes=5, scripts=clients, secure=True)
    made.go()
    check_mean(made, list(clients.values()))
    told = clients[1].told[0]
    assert told.levels >= 127  # as fine as 8 bits at least
    totals = Ledger(made.registry).totals(made.run, by=("client", "direction", "layer"))
    for (node, direction), count in made.grid.bytes.items():
        assert totals[str(node), direction, "message"] == count
    kinds = Ledger(made.registry).totals(made.run, by=("kind", "direction", "layer"))
    assert kinds["coefficients", "up", "payload"] == 0
    assert kinds["shares", "up", "payload"] == 5 * (5 * (D * told.width + 8) + D * told.width)
    assert kinds["keys", "up", "message"] > 5 * 32


PATTERNS = [
    (gone, late)
    for gone, late in itertools.product(range(3), repeat=2)
    if 7 - gone - late >= threshold(7)
]


@pytest.mark.parametrize(("gone", "late"), PATTERNS)
def test_whoever_drops_out_before_or_after_its_update_the_sum_is_of_those_that_sent_one(
    federation: Make, gone: int, late: int
) -> None:
    drawn = random.Random(10 * gone + late).sample(range(1, 8), gone + late)
    clients = fleet(
        7, train=dict.fromkeys(drawn[:gone], away), open=dict.fromkeys(drawn[gone:], away)
    )
    made = federation(nodes=7, scripts=clients, secure=True)
    made.go()
    check_mean(made, [clients[n] for n in clients if n not in drawn[:gone]])


@pytest.mark.parametrize("phase", ["train", "open"])
def test_with_fewer_than_the_threshold_nothing_is_recorded_and_all_are_asked_again(
    federation: Make, phase: str
) -> None:
    clients = fleet(7, **{phase: dict.fromkeys((1, 2, 3), away)})
    made = federation(nodes=7, scripts=clients, secure=True)
    with pytest.raises(RecastError, match=r"too few clients took part|no update was accepted"):
        made.go()
    assert made.registry.rounds(made.run, 1) == []
    assert len(made.trained(7)) == 3


def test_a_round_that_failed_is_learned_when_they_are_back(federation: Make) -> None:
    tries = itertools.count()

    def once(question: pb.ToClient, reply: pb.ToServer) -> object:
        return AWAY if next(tries) < 3 else reply

    clients = fleet(7, open=dict.fromkeys((1, 2, 3), once))
    made = federation(nodes=7, scripts=clients, secure=True)
    made.go()
    check_mean(made, list(clients.values()))
    assert len(clients[7].told) == 2
    assert clients[7].told[0].nonce < clients[7].told[1].nonce


def test_a_lying_share_is_found_and_the_sum_is_right(federation: Make) -> None:
    def lies(question: pb.ToClient, reply: pb.ToServer) -> object:
        reply.opened.share = bytes(len(reply.opened.share))
        return reply

    clients = fleet(10, open={4: lies})
    made = federation(nodes=10, scripts=clients, secure=True)
    made.go()
    check_mean(made, list(clients.values()))
    assert made.reasons() == {"lying-share": 1}


SPOILED = {
    "on no polynomial": lambda field, secret, members, needed: field.random((members, D)),
    "beyond what a sum can be": lambda field, secret, members, needed: share(
        field, field.wrap(np.full(D, field.prime // 3)), members, needed
    ),
}


@pytest.mark.parametrize("shares", SPOILED.values(), ids=SPOILED)
def test_whoever_spoils_sums_is_found_in_a_few_rounds_and_every_round_is_recorded(
    federation: Make, shares: Callable[..., np.ndarray]
) -> None:
    def spoils(question: pb.ToClient, reply: pb.ToServer) -> object:
        with patch("client.secure.share", shares):
            return clients[4].right(question, reply)

    clients = fleet(10, train={4: spoils})
    made = federation(nodes=10, scripts=clients, secure=True, rounds=6)
    made.go()
    counts = [round_.clients for round_ in made.registry.rounds(made.run, 1)]
    assert len(counts) == 6
    assert min(counts) >= 5
    assert counts[-1] == 9
    assert made.reasons() == {"spoils-sums": 1}
    assert {refusal.client for refusal in made.registry.refusals(made.run)} == {"4"}


def test_whoever_spoils_only_sums_in_which_it_shows_spoils_ever_fewer(federation: Make) -> None:
    def shares(field: Field, secret: Numbers, members: int, needed: int) -> np.ndarray:
        found = share(field, secret, members, needed)
        found[0] = field.wrap(field.centred(found[0]) + 1)  # which three of three do not show
        return found

    def spoils(question: pb.ToClient, reply: pb.ToServer) -> object:
        with patch("client.secure.share", shares):
            return clients[6].right(question, reply)

    clients = fleet(6, train={6: spoils})
    made = federation(nodes=6, scripts=clients, secure=True, rounds=20)
    made.go()
    assert len(made.registry.rounds(made.run, 1)) == 20
    asked = [
        one.train.round for one in made.grid.nodes[1].asked if one.WhichOneof("body") == "train"
    ]
    again = [round_ for round_ in asked if asked.count(round_) > 1][::2]
    assert again == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("how", ["spoils-sums", "forged-shares"])
def test_whoever_was_left_out_stays_so_when_the_server_starts_again(
    federation: Make, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    def spoils(question: pb.ToClient, reply: pb.ToServer) -> object:
        if how == "forged-shares":
            reply.update.shares = bytes(len(reply.update.shares))
            return reply
        with patch("client.secure.share", SPOILED["beyond what a sum can be"]):
            return clients[4].right(question, reply)

    clients = fleet(6, train={4: spoils})
    first = federation(nodes=6, scripts=clients, secure=True, rounds=4)
    first.go()
    again = federation(nodes=6, scripts=clients, secure=True, rounds=6, run=first.run)
    before = len(clients[4].told)
    again.go()
    assert [round_.clients for round_ in again.registry.rounds(again.run, 1)][4:] == [5, 5]
    assert len(clients[4].told) == before
    assert again.reasons() == {how: 1}
    assert "without 1 client that spoiled them before" in caplog.text


def test_of_whom_it_is_suspected_is_known_when_the_server_starts_again(federation: Make) -> None:
    def spoils(question: pb.ToClient, reply: pb.ToServer) -> object:
        with patch("client.secure.share", SPOILED["beyond what a sum can be"]):
            return clients[4].right(question, reply)

    def members_told() -> list[int]:
        asked = again.grid.nodes[1].asked
        return [len(one.keys.members) for one in asked if one.keys.members]

    clients = fleet(10, train={4: spoils})
    first = federation(nodes=10, scripts=clients, secure=True, rounds=1)
    first.go()
    (doubted,) = suspected(first.registry, first.run).values()
    assert 4 in doubted
    assert len(doubted) == 5
    again = federation(nodes=10, scripts=clients, secure=True, rounds=4, run=first.run)
    again.go()
    assert members_told()[0] == 5  # in two groups at once, and not all in one to be spoiled again
    assert [round_.clients for round_ in again.registry.rounds(again.run, 1)][-1] == 9
    assert again.reasons() == {"spoils-sums": 1}
    assert not suspected(again.registry, again.run)


def test_whoever_spoils_sums_of_one_task_is_in_no_sum_of_the_next(federation: Make) -> None:
    def spoils(question: pb.ToClient, reply: pb.ToServer) -> object:
        with patch("client.secure.share", SPOILED["beyond what a sum can be"]):
            return clients[4].right(question, reply)

    clients = fleet(6, train={4: spoils})
    made = federation(nodes=6, scripts=clients, secure=True, rounds=4, tasks=2)
    made.go()
    assert [round_.clients for round_ in made.registry.rounds(made.run, 2)] == [5] * 4
    assert made.reasons() == {"spoils-sums": 1}


def test_sealed_shares_that_nobody_can_read_bar_whoever_sent_them(federation: Make) -> None:
    def garbage(question: pb.ToClient, reply: pb.ToServer) -> object:
        reply.update.shares = bytes(len(reply.update.shares))
        return reply

    clients = fleet(6, train={2: garbage})
    made = federation(nodes=6, scripts=clients, secure=True)
    made.go()
    check_mean(made, [clients[n] for n in clients if n != 2])
    assert made.reasons() == {"forged-shares": 1}


def test_a_complaint_that_convicts_nobody_is_in_the_log_with_both_its_sides(
    federation: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def accuses(question: pb.ToClient, reply: pb.ToServer) -> object:
        reply.opened.share, reply.opened.forged = b"", bytes([2])  # the second place
        return reply

    clients = fleet(6, open={1: accuses})
    made = federation(nodes=6, scripts=clients, secure=True)
    made.go()
    check_mean(made, list(clients.values()))
    said = "client 1 says that what 2 sealed for it is no share: one of them lies"
    assert said in caplog.text
    assert not made.reasons()


def test_a_share_of_another_round_is_refused(federation: Make) -> None:
    def of_before(question: pb.ToClient, reply: pb.ToServer) -> object:
        reply.opened.round += 1
        return reply

    clients = fleet(6, open={3: of_before})
    made = federation(nodes=6, scripts=clients, secure=True)
    made.go()
    check_mean(made, list(clients.values()))
    assert made.reasons() == {"stale-round": 1}


ACCUSES_ALL = bytes([255] * 4)
MISLEADS: dict[str, Callable[[pb.ToServer], object]] = {
    "accuses all": lambda reply: pb.ToServer(
        opened=pb.Opened(
            bank=reply.opened.bank, task=reply.opened.task, round=reply.opened.round,
            forged=ACCUSES_ALL,
        )
    ),
    "tells no share": lambda reply: pb.ToServer(
        opened=pb.Opened(
            bank=reply.opened.bank, task=reply.opened.task, round=reply.opened.round, share=b"no"
        )
    ),
    "is away": lambda reply: AWAY,
}  # fmt: skip


@pytest.mark.parametrize("nodes", [6, 10])
@pytest.mark.parametrize("misleads", MISLEADS.values(), ids=MISLEADS)
def test_one_that_keeps_just_enough_others_from_opening_is_found_and_ends_nothing(
    federation: Make, nodes: int, misleads: Callable[[pb.ToServer], object]
) -> None:
    def seals(question: pb.ToClient, reply: pb.ToServer) -> object:
        length = D * question.train.secure.width + 8
        content = bytearray(reply.update.shares)
        members = len(content) // length
        # As many as may lie: too few to convict, and one too many with its own silence.
        for place in range(max(members - threshold(members), 1)):
            content[place * length] ^= 1
        reply.update.shares = bytes(content)
        return reply

    liar = nodes  # the last place of every group that it is in
    clients = fleet(
        nodes, train={liar: seals}, open={liar: lambda question, reply: misleads(reply)}
    )
    made = federation(nodes=nodes, scripts=clients, secure=True, rounds=8)
    made.go()
    counts = [round_.clients for round_ in made.registry.rounds(made.run, 1)]
    assert len(counts) == 8
    assert counts[-2:] == [nodes - 1] * 2
    assert {refusal.client for refusal in made.registry.refusals(made.run)} == {str(liar)}


def test_among_three_one_that_accuses_convicts_nobody(federation: Make) -> None:
    accuses = itertools.count()

    def once(question: pb.ToClient, reply: pb.ToServer) -> object:
        return reply if next(accuses) else MISLEADS["accuses all"](reply)

    clients = fleet(3, open={3: once})
    made = federation(nodes=3, scripts=clients, secure=True)
    made.go()
    check_mean(made, list(clients.values()))
    assert made.reasons() == {}


@pytest.mark.parametrize("nodes", [1, 2])
def test_fewer_than_three_cannot_hide(federation: Make, nodes: int) -> None:
    made = federation(nodes=nodes, scripts=fleet(nodes), secure=True)
    with pytest.raises(RecastError, match=f"^{nodes} client.* a hidden sum needs at least 3"):
        made.go()
    assert made.trained(1) == []
    assert made.grid.nodes[1].asked == []  # not even greeted, and sent no bank


def test_an_update_that_is_not_hidden_or_not_as_asked_is_refused(federation: Make) -> None:
    def openly(question: pb.ToClient, reply: pb.ToServer) -> object:
        reply.update.coefficients = bytes(D)
        return reply

    def short(question: pb.ToClient, reply: pb.ToServer) -> object:
        reply.update.shares = reply.update.shares[1:]
        return reply

    def boasts(question: pb.ToClient, reply: pb.ToServer) -> object:
        reply.update.examples = 2**32 - 1
        return reply

    def twice(question: pb.ToClient, reply: pb.ToServer) -> object:
        return [reply, reply]

    clients = fleet(10, train={1: openly, 2: short, 3: boasts, 4: twice})
    made = federation(nodes=10, scripts=clients, secure=True)
    made.go()
    check_mean(made, [clients[n] for n in clients if n > 3])
    assert made.reasons() == {
        "malformed": 1, "wrong-length": 1, "too-many-examples": 1, "replayed": 1,
    }  # fmt: skip


def test_a_server_that_is_killed_at_any_moment_asks_again_and_ends_in_the_same_bytes(
    federation: Make,
) -> None:
    whole = federation(nodes=4, scripts=fleet(4), secure=True, rounds=2)
    whole.go()
    wanted = whole.vector(1).tobytes()
    events, at = whole.grid.events, 0
    while (at := at + 1) <= events:
        clients = fleet(4)
        made = federation(nodes=4, scripts=clients, secure=True, rounds=2)
        made.grid.kill_at = at
        with pytest.raises(BaseException):  # noqa: B017, PT011 - stands for the process's end
            made.go()
        again = federation(nodes=4, scripts=clients, secure=True, rounds=2, run=made.run)
        again.go()
        assert again.vector(1).tobytes() == wanted
        assert [r.round for r in again.registry.rounds(again.run, 1)] == [1, 2]


def test_steps_become_finer_as_the_rate_falls(federation: Make) -> None:
    clients = fleet(3)
    federation(nodes=3, scripts=clients, secure=True, rounds=4, falls=True).go()
    steps = [told.step for told in clients[1].told]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < steps[0] / 5


def test_keys_and_rosters_travel_once_while_the_clients_stay(federation: Make) -> None:
    made = federation(nodes=4, scripts=fleet(4), secure=True, rounds=3)
    made.go()
    assert made.grid.nodes[1].kinds().count("keys") == 2
    assert made.grid.nodes[1].kinds().count("open") == 3


def test_a_client_that_lost_its_key_is_told_the_others_again(federation: Make) -> None:
    tries = itertools.count()

    def loses(question: pb.ToClient, reply: pb.ToServer) -> object:
        if next(tries) == 0:  # after its first round: nothing of it is left
            clients[2].hiding = Hiding(HeldStore(), 2, None)
        return reply

    def refuses(question: pb.ToClient, right: pb.ToServer) -> object:
        try:
            return clients[2].right(question, right)
        except RefusedError as error:
            reason = pb.Refusal.REASON_ROSTER
            return pb.ToServer(refusal=pb.Refusal(reason=reason, detail=str(error)))

    clients = fleet(4)
    made = federation(nodes=4, scripts=clients, secure=True, rounds=3)
    made.grid.nodes[2].script = lambda question, right: (
        loses(question, refuses(question, right))
        if question.WhichOneof("body") == "open"
        else refuses(question, right)
    )
    made.go()
    assert [round_.clients for round_ in made.registry.rounds(made.run, 1)] == [4, 3, 4]


def test_a_key_that_others_would_not_believe_keeps_nobody_out_but_its_owner(
    federation: Make,
) -> None:
    def unsigned(question: pb.ToClient, reply: pb.ToServer) -> object:
        reply.keys.member.signature = b"none"
        return reply

    def distrusts(question: pb.ToClient, reply: pb.ToServer) -> object:
        if any(member.signature for member in question.keys.members):
            return pb.ToServer(refusal=pb.Refusal(reason=pb.Refusal.REASON_ROSTER))
        return reply

    clients = fleet(5, keys={4: unsigned} | dict.fromkeys((1, 2, 3, 5), distrusts))
    made = federation(nodes=5, scripts=clients, secure=True, rounds=2)
    made.grid.why_not_of = lambda node, member: "no signature" if member.signature else ""  # type: ignore[attr-defined]
    made.go()
    assert [round_.clients for round_ in made.registry.rounds(made.run, 1)] == [4, 4]
    assert made.reasons() == {"unsigned-key": 2}


IMPOSSIBLE = {
    "short": bytes(31),
    "the point at infinity": bytes(32),
    "of small order": bytes.fromhex(
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
    ),
}


@pytest.mark.parametrize("public", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_key_that_nobody_can_have_keeps_nobody_out_but_its_owner(
    federation: Make, public: bytes
) -> None:
    def impossible(question: pb.ToClient, reply: pb.ToServer) -> object:
        reply.keys.member.public = public
        return reply

    clients = fleet(5, keys={4: impossible})
    made = federation(nodes=5, scripts=clients, secure=True, rounds=2)
    made.go()
    assert [round_.clients for round_ in made.registry.rounds(made.run, 1)] == [4, 4]
    assert made.reasons() == {"malformed": 2}


def test_one_that_loses_its_key_again_and_again_is_left_out_and_counted(
    federation: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def another(question: pb.ToClient, reply: pb.ToServer) -> object:
        clients[4].hiding = Hiding(HeldStore(), 4, None)
        return clients[4].right(question, reply)

    clients = fleet(5, keys={4: another})
    made = federation(nodes=5, scripts=clients, secure=True, rounds=3)
    made.go()
    assert [round_.clients for round_ in made.registry.rounds(made.run, 1)] == [4] * 3
    assert made.reasons() == {"key-lost": 1}
    (refusal,) = made.registry.refusals(made.run)
    assert refusal.client == "4"
    assert "lost its key 4 times" in refusal.detail
    assert "key-lost" in caplog.text


def test_one_that_says_in_each_round_that_it_lacks_the_roster_is_sent_it_seldom(
    federation: Make,
) -> None:
    def lacks(question: pb.ToClient, reply: pb.ToServer) -> object:
        return pb.ToServer(refusal=pb.Refusal(reason=pb.Refusal.REASON_ROSTER))

    made = federation(nodes=5, scripts=fleet(5, train={5: lacks}), secure=True, rounds=30)
    made.go()
    asked = made.grid.nodes[5].asked
    assert sum(len(question.keys.members) > 0 for question in asked) <= 10
    assert [round_.clients for round_ in made.registry.rounds(made.run, 1)] == [4] * 30


def test_one_that_alone_is_sent_the_roster_again_and_keeps_silent_costs_seconds(
    federation: Make,
) -> None:
    def lacks(question: pb.ToClient, reply: pb.ToServer) -> object:
        return pb.ToServer(refusal=pb.Refusal(reason=pb.Refusal.REASON_ROSTER))

    made = federation(
        nodes=5, scripts=fleet(5, train={5: lacks}), secure=True, rounds=6, deadline=3600.0,
        max_lag=10.0,
    )  # fmt: skip
    asked = made.grid.nodes[5].kinds
    made.grid.nodes[5].delay = lambda question: 1e9 if "train" in asked()[:-1] else 0.0
    made.go()
    assert [round_.clients for round_ in made.registry.rounds(made.run, 1)] == [4] * 6
    assert made.clock.now < 12


def test_one_that_was_silent_twice_is_in_a_sum_again_when_it_has_answered(
    federation: Make,
) -> None:
    """It is asked before it is waited for, as long as the sum does not need it."""
    made = federation(
        nodes=5, scripts=fleet(5), secure=True, rounds=20, deadline=3600.0, max_lag=10.0
    )

    def twice(question: pb.ToClient) -> float:
        return 30.0 if question.WhichOneof("body") == "train" and question.train.round in (
            2, 5) else 0.0  # fmt: skip

    made.grid.nodes[5].delay = twice
    for node in range(1, 5):
        made.grid.nodes[node].delay = lambda question: 1.0
    made.go()
    counts = [round_.clients for round_ in made.registry.rounds(made.run, 1)]
    assert counts[-3:] == [5, 5, 5]
    assert counts.count(4) >= 2


def test_one_that_has_another_key_each_time_is_left_out_and_ends_nothing(
    federation: Make,
) -> None:
    def another(question: pb.ToClient, reply: pb.ToServer) -> object:
        clients[2].hiding = Hiding(HeldStore(), 2, None)
        return clients[2].right(question, reply)

    clients = fleet(5, keys={2: another})
    made = federation(nodes=5, scripts=clients, secure=True)
    made.go()
    check_mean(made, [clients[n] for n in clients if n != 2])


def wanting(clients: dict[int, Client], least: dict[int, int]) -> dict[int, Client]:
    for number, wanted in least.items():
        client = clients[number]
        client.hiding = replace(client.hiding, least=wanted)
    return clients


def test_who_wants_larger_sums_than_there_are_is_left_out_and_named(federation: Make) -> None:
    """Of six clients five make a sum; without the two that want more, of four three."""
    clients = wanting(fleet(7), {6: 6, 7: 22, 1: 3})
    made = federation(nodes=7, scripts=clients, secure=True, rounds=2)
    made.go()
    assert [round_.clients for round_ in made.registry.rounds(made.run, 1)] == [5, 5]
    check_mean(made, [clients[n] for n in range(1, 6)], round_=2)
    assert made.reasons() == {"least-sum": 4}
    assert all(not clients[n].told for n in (6, 7))


def test_clients_that_want_large_sums_are_not_divided_to_find_out_who_spoils_them(
    federation: Make,
) -> None:
    tries = itertools.count()

    def spoils(question: pb.ToClient, reply: pb.ToServer) -> object:
        if next(tries) == 0:
            reply.opened.share = bytes(len(reply.opened.share))
        return reply

    clients = wanting(fleet(6, open={4: spoils}), dict.fromkeys(range(1, 7), 5))
    made = federation(nodes=6, scripts=clients, secure=True)
    made.go()
    assert made.registry.rounds(made.run, 1)[0].clients == 6


def test_a_run_in_which_everybody_wants_larger_sums_ends_with_a_line(federation: Make) -> None:
    clients = wanting(fleet(4), dict.fromkeys(range(1, 5), 4))
    made = federation(nodes=4, scripts=clients, secure=True)
    with pytest.raises(RecastError, match="wants sums of 4 clients or more, and 3 make one here"):
        made.go()


def test_where_few_are_drawn_one_that_keeps_no_roster_makes_the_lot_fall_on_others(
    federation: Make,
) -> None:
    def refuses(question: pb.ToClient, reply: pb.ToServer) -> object:
        return pb.ToServer(refusal=pb.Refusal(reason=pb.Refusal.REASON_ROSTER))

    clients = fleet(9, keys=dict.fromkeys((2, 7), refuses))
    made = federation(
        nodes=9, scripts=clients, secure=True, rounds=8, clients_per_round=3, quorum=3
    )
    made.go()
    assert [round_.clients for round_ in made.registry.rounds(made.run, 1)] == [3] * 8
    assert made.reasons()["roster"] > 0


@pytest.mark.parametrize("thief", [2, 4])
def test_who_announces_anothers_key_is_left_out_and_its_owner_is_not(
    federation: Make, thief: int
) -> None:
    def steals(question: pb.ToClient, reply: pb.ToServer) -> object:
        reply.keys.member.public = public_key(clients[3].hiding.store.read("secure-key-3"))
        return reply

    clients = fleet(5, keys={thief: steals})
    clients[3].hiding.keep_keys(pb.KeyRequest())  # it has had a key since an earlier run
    made = federation(nodes=5, scripts=clients, secure=True, rounds=3)
    made.go()
    assert [round_.clients for round_ in made.registry.rounds(made.run, 1)] == [4] * 3
    assert {(one.client, one.reason) for one in made.registry.refusals(made.run)} == {
        (str(thief), "same-key")
    }
    proofs = [n for n in (1, 2, 3, 4, 5) for q in made.grid.nodes[n].asked if q.keys.challenge]
    assert sorted(proofs) == sorted((3, thief)), "asked once, however often it is announced"


def test_where_nobody_proves_a_key_it_stays_with_who_announced_it_first(federation: Make) -> None:
    def cannot(question: pb.ToClient, reply: pb.ToServer) -> object:
        reply.keys.ClearField("proof")
        return reply

    clients = fleet(5, keys=dict.fromkeys((3, 4), cannot))  # as of an earlier version
    clients[3].hiding = clients[4].hiding
    made = federation(nodes=5, scripts=clients, secure=True)
    made.go()
    assert made.registry.rounds(made.run, 1)[0].clients == 4
    assert [one.client for one in made.registry.refusals(made.run)] == ["4"]


def test_two_clients_with_one_key_are_one(federation: Make) -> None:
    clients = fleet(5)
    clients[3].hiding = clients[4].hiding
    made = federation(nodes=5, scripts=clients, secure=True)
    made.go()
    assert made.registry.rounds(made.run, 1)[0].clients == 4
    assert made.reasons() == {"same-key": 1}


@pytest.mark.parametrize("count", [3, 5, 6, 32, 33, 70, 1000])
@pytest.mark.parametrize("parts", [1, 2])
def test_groups_hold_everybody_once_and_are_neither_small_nor_large(count: int, parts: int) -> None:
    groups = divided(list(range(count)), frozenset(range(3)), parts)
    assert sorted(node for group in groups for node in group) == list(range(count))
    sizes = [len(group) for group in groups]
    assert min(sizes) >= FEWEST
    assert max(sizes) <= MOST
    assert max(sizes) - min(sizes) <= 1
