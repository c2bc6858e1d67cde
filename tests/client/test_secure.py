"""A client's part in a hidden sum: what it refuses, so that a server can only learn the sum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.residuals import FileStore
from client.secure import ContradictionError, Hiding, RosterError
from experiments.command.certs import add, init
from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.secure.channel import proof, public_key
from recast_core.secure.levels import Levels
from recast_core.secure.members import DistrustError, Identity, as_bits, check_member, own_identity
from recast_core.secure.shamir import combine, threshold
from recast_core.wire.messages import RefusedError

D, COUNT = 4, 5
LEVELS = Levels(2, 100, 0.01, 10.0)
ROSTER = 7


class Sum:
    """Five clients and what a server would forward between them."""

    def __init__(self, folder: Path, identities: list[Identity | None] | None = None) -> None:
        self.clients = [
            Hiding(FileStore(folder), number, identities[number] if identities else None)
            for number in range(COUNT)
        ]
        self.members = [client.keep_keys(pb.KeyRequest()).member for client in self.clients]
        self.request = pb.KeyRequest(roster=ROSTER, members=self.members)

    def keep(self) -> None:
        for client in self.clients:
            assert client.keep_keys(self.request).roster == ROSTER

    def broadcast(self, nonce: int = 1, **changed: float) -> pb.Broadcast:
        told = {"width": 2, "levels": 100, "step": 0.01, "unit": 10.0} | changed
        secure = pb.SecureRound(roster=ROSTER, nonce=nonce, **told)  # type: ignore[arg-type]
        return pb.Broadcast(bank=1, task=2, round=3, secure=secure)

    def sealed(self, nonce: int = 1) -> list[tuple[bytes, bytes]]:
        broadcast = self.broadcast(nonce)
        return [
            client.seal(np.full(D, 0.1 * number, np.float32), 40, broadcast)
            for number, client in enumerate(self.clients)
        ]

    def opening(
        self, member: int, sealed: list[tuple[bytes, bytes]], survivors: list[int], nonce: int = 1
    ) -> pb.Opening:
        length = len(sealed[0][1]) // COUNT
        return pb.Opening(
            bank=1, task=2, round=3, roster=ROSTER, nonce=nonce, width=2,
            survivors=as_bits(survivors, COUNT),
            shares=b"".join(
                sealed[n][0] + sealed[n][1][member * length :][:length] for n in survivors
            ),
        )  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Sum:
    made = Sum(tmp_path)
    made.keep()
    return made


def test_the_members_open_the_sum_and_a_client_of_the_same_store_goes_on(
    made: Sum, tmp_path: Path
) -> None:
    sealed = made.sealed()
    again = [Hiding(FileStore(tmp_path), number, None) for number in range(COUNT)]
    told = {
        member: LEVELS.field.unpack(
            client.open(made.opening(member, sealed, [0, 1, 3, 4])).share, D
        )
        for member, client in enumerate(again)
    }
    total = LEVELS.field.centred(combine(LEVELS.field, told, threshold(COUNT)))
    np.testing.assert_array_equal(total, np.full(D, 4 * 10 * (0 + 1 + 3 + 4)))
    assert (tmp_path / "secure-key-0").stat().st_mode & 0o077 == 0


def test_a_sum_is_opened_for_one_set_of_survivors_and_the_same_again(made: Sum) -> None:
    sealed = made.sealed()
    first = made.clients[0].open(made.opening(0, sealed, [0, 1, 2, 3, 4]))
    assert made.clients[0].open(made.opening(0, sealed, [0, 1, 2, 3, 4])) == first
    # The difference would be client 4's update.
    with pytest.raises(ContradictionError, match="opened already"):
        made.clients[0].open(made.opening(0, sealed, [0, 1, 2, 3]))


def test_an_earlier_sum_is_neither_opened_nor_added_to_again(made: Sum) -> None:
    first, second = made.sealed(1), made.sealed(2)
    made.clients[0].open(made.opening(0, second, [0, 1, 2, 3], nonce=2))
    with pytest.raises(ContradictionError, match="before another"):
        made.clients[0].open(made.opening(0, first, [0, 1, 2, 3, 4], nonce=1))
    for nonce in (1, 2):
        with pytest.raises(ContradictionError, match="no more updates"):
            made.clients[0].seal(np.zeros(D, np.float32), 40, made.broadcast(nonce))


def test_a_damaged_note_of_what_was_opened_opens_nothing(made: Sum, tmp_path: Path) -> None:
    sealed = made.sealed()
    (tmp_path / "secure-opened-0-2").write_bytes(b"?")
    with pytest.raises(ContradictionError, match="damaged"):
        made.clients[0].open(made.opening(0, sealed, [0, 1, 2, 3]))


def test_shares_of_another_sum_or_sender_are_named_and_the_sum_stays_shut(made: Sum) -> None:
    first, second = made.sealed(1), made.sealed(2)
    mixed = [second[0], first[1], second[2], (second[3][0], second[4][1]), second[4]]
    opened = made.clients[0].open(made.opening(0, mixed, [0, 1, 2, 3, 4], nonce=2))
    assert opened.forged == as_bits([1, 3], COUNT)
    assert not opened.share
    # Nothing was told, so that the right shares may still come.
    assert made.clients[0].open(made.opening(0, second, [0, 1, 2, 3, 4], nonce=2)).share


@pytest.mark.parametrize("survivors", [[0], [0, 1, 2]])
def test_a_sum_of_few_is_refused(made: Sum, survivors: list[int]) -> None:
    with pytest.raises(RosterError, match="too few to hide among"):
        made.clients[0].open(made.opening(0, made.sealed(), survivors))


def test_a_roster_that_is_not_here_is_asked_for_and_one_of_strangers_not_kept(made: Sum) -> None:
    other = made.broadcast()
    other.secure.roster = ROSTER + 1
    with pytest.raises(RosterError, match="is not here"):
        made.clients[0].seal(np.zeros(D, np.float32), 40, other)
    strangers = pb.KeyRequest(roster=ROSTER, members=made.members[1:])
    assert made.clients[0].keep_keys(strangers).member == made.members[0]
    for members, why in (
        (made.members[:2], "sum of 2"),
        ([*made.members[:3], made.members[2]], "twice"),
        ([*made.members[:3], pb.SecureMember(public=b"short")], "none"),
    ):
        with pytest.raises(RosterError, match=why):
            made.clients[0].keep_keys(pb.KeyRequest(roster=ROSTER, members=members))


def test_a_client_takes_part_in_no_sum_of_fewer_than_it_wants(made: Sum) -> None:
    """Of a roster of five, four make a sum: that is what counts, before anything is sealed."""
    replace(made.clients[0], least=4).keep_keys(made.request)
    sealed = made.sealed()
    strict = replace(made.clients[0], least=5)
    for refused in (
        lambda: strict.keep_keys(made.request),
        # One that was kept when less was wanted is worth no more.
        lambda: strict.seal(np.zeros(D, np.float32), 40, made.broadcast()),
        lambda: strict.open(made.opening(0, sealed, [0, 1, 2, 3, 4])),
    ):
        with pytest.raises(RosterError, match=r"5 clients 4 make a sum.*at least 5"):
            refused()


@pytest.mark.parametrize(
    "changed",
    [{"width": 5}, {"width": 0}, {"levels": 0}, {"levels": 2**15}, {"step": 0.0},
     {"step": float("inf")}, {"step": float("nan")}, {"unit": -1.0}],
)  # fmt: skip
def test_numbers_in_which_a_sum_could_not_be_counted_are_refused(
    made: Sum, changed: dict[str, float]
) -> None:
    with pytest.raises(RefusedError, match="cannot be counted"):
        made.clients[0].seal(np.zeros(D, np.float32), 40, made.broadcast(**changed))


def test_shares_of_no_length_or_width_are_refused(made: Sum) -> None:
    opening = made.opening(0, made.sealed(), [0, 1, 2, 3])
    for change in ({"width": 9}, {"shares": opening.shares[1:]}, {"shares": b""}):
        broken = pb.Opening()
        broken.CopyFrom(opening)
        for name, value in change.items():
            setattr(broken, name, value)
        with pytest.raises(RefusedError):
            made.clients[0].open(broken)


@pytest.mark.parametrize("public", [bytes(31), bytes(32), b"\1" + bytes(31)])
def test_a_roster_with_a_key_that_nobody_can_have_is_refused(made: Sum, public: bytes) -> None:
    members = [*made.members[:4], pb.SecureMember(public=public)]
    with pytest.raises(RosterError, match="one that is none"):
        made.clients[0].keep_keys(pb.KeyRequest(roster=8, members=members))


def test_only_the_owner_of_a_key_can_prove_that_it_is_its_own(made: Sum) -> None:
    private = bytes(range(32))
    request = pb.KeyRequest(challenge=public_key(private))
    told = [client.keep_keys(request) for client in made.clients]
    proofs = {proof(private, member.public) for member in made.members}
    assert [proof(private, one.member.public) for one in told] == [one.proof for one in told]
    assert len(proofs) == COUNT
    for challenge in (bytes(32), b"short"):
        with pytest.raises(RefusedError, match="no key"):
            made.clients[0].keep_keys(pb.KeyRequest(challenge=challenge))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp("certs"), tmp_path_factory.mktemp("others")]
    for folder in folders:
        init(folder, ["localhost"], [f"edge-{n}" for n in range(COUNT)], force=False)
    return folders


def identity(folder: Path, name: str) -> Identity:
    return own_identity(folder / f"{name}.key", folder / f"{name}.pem", folder / "ca.pem")


def test_with_certificates_a_server_can_put_no_key_of_its_own_into_a_roster(
    certificates: list[Path], tmp_path: Path
) -> None:
    ours, others = certificates
    made = Sum(tmp_path / "a", [identity(ours, f"edge-{n}") for n in range(COUNT)])
    made.keep()
    plain = Sum(tmp_path / "b").members[4]
    stolen = pb.SecureMember(
        public=plain.public,
        certificate=made.members[4].certificate,
        signature=made.members[4].signature,
    )
    strange = Sum(tmp_path / "c", [identity(others, f"edge-{n}") for n in range(COUNT)]).members[4]
    server = Hiding(FileStore(tmp_path / "d"), 4, identity(ours, "server"))
    twin = Hiding(FileStore(tmp_path / "d"), 5, identity(ours, "edge-3"))
    for member, why in (
        (plain, "not signed"),
        (stolen, "not signed"),
        (strange, "not signed"),
        (server.keep_keys(pb.KeyRequest()).member, "not made for clients"),
        (twin.keep_keys(pb.KeyRequest()).member, "a client twice"),
    ):
        request = pb.KeyRequest(roster=8, members=[*made.members[:4], member])
        with pytest.raises(RosterError, match=why):
            made.clients[0].keep_keys(request)


def test_a_server_sees_which_key_the_other_members_would_not_believe(
    certificates: list[Path], tmp_path: Path
) -> None:
    ours, others = certificates
    members = Sum(tmp_path / "a", [identity(ours, f"edge-{n}") for n in range(COUNT)]).members
    strange = Sum(tmp_path / "b", [identity(others, f"edge-{n}") for n in range(COUNT)]).members[0]
    authority = identity(ours, "edge-0").authority
    check_member(members[0], "edge-0", authority)
    damaged = pb.SecureMember()
    damaged.CopyFrom(members[0])
    damaged.signature = bytes(70)
    odd = pb.SecureMember()
    odd.CopyFrom(members[0])  # with a version of certificates that nobody uses, and parsers refuse
    odd.certificate = odd.certificate.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01")
    assert odd != members[0]
    for member, why in (
        (odd, "not signed"),
        (members[1], "not that of edge-0"),
        (strange, "not signed"),
        (damaged, "not signed"),
        (pb.SecureMember(public=members[0].public), "not signed"),
        (pb.SecureMember(public=members[0].public, certificate=bytes(3000)), "not signed"),
    ):
        with pytest.raises(DistrustError, match=why):
            check_member(member, "edge-0", authority)


def test_a_certificate_that_cannot_sign_is_one_line(certificates: list[Path]) -> None:
    add(certificates[1], "late", force=False)
    (certificates[1] / "late.key").write_text("no key")
    with pytest.raises(RecastError, match=r"cannot sign with .*late\.pem"):
        identity(certificates[1], "late")
