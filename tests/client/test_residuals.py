"""Error feedback: nothing that a client has learned is forgotten, and nothing is said twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client.residuals import FileStore, Residuals
from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.wire.codec import Encoded, Vector, decode
from recast_core.wire.messages import Hyperparameters
from recast_core.wire.rounding import client_seed
from recast_core.wire.transforms import round_update

D = 5
TASK = pb.Task(id=2, name="a", source="digits")
COUNTED, LOST, AWAY = "counted", "lost", "away"

learned = arrays(np.float32, D, elements=st.floats(-8, 8, width=32, allow_subnormal=False))
widths = st.sampled_from([16, 8, 5, 4, 3, 2, 1])


@dataclass
class Held:
    """A store in memory."""

    kept: dict[str, bytes] = field(default_factory=dict)

    def read(self, name: str) -> bytes:
        return self.kept.get(name, b"")

    def write(self, name: str, content: bytes) -> None:
        self.kept[name] = content


@dataclass
class Client:
    """A client with error feedback, and a server that knows which of its updates counted."""

    hyper: Hyperparameters
    store: Held | FileStore = field(default_factory=Held)
    number: int = 0
    counted: int = 0

    def broadcast(self, round_: int) -> pb.Broadcast:
        asked = pb.Broadcast(
            bank=7, task=TASK.id, round=round_, coefficients=b"%d" % round_, counted=self.counted
        )
        asked.hyperparameters.seed, asked.hyperparameters.bits = self.hyper.seed, self.hyper.bits
        return asked

    def memory(self, asked: pb.Broadcast) -> Residuals:
        return Residuals.of(self.store, asked, TASK, self.number)

    def answer(self, asked: pb.Broadcast, offsets: Vector) -> Encoded:
        seed = client_seed(self.hyper.seed, asked.task, asked.round, self.number)
        return round_update(offsets, self.memory(asked), asked, self.hyper, seed)

    def left(self, round_: int) -> Vector:
        """What would be added to the update of ``round_``."""
        found = self.memory(self.broadcast(round_)).applicable(self.broadcast(round_), D)
        return np.zeros(D, np.float32) if found is None else found


def live(client: Client, rounds: Sequence[tuple[str, Vector]]) -> tuple[Vector, Vector, float]:
    """What counted of the updates, what was learned in the rounds that did, and the largest sum."""
    said, wanted, largest = np.zeros(D), np.zeros(D), 0.0
    for round_, (fate, offsets) in enumerate(rounds, 1):
        if fate == AWAY:
            continue
        asked = client.broadcast(round_)
        before = client.left(round_)
        update = decode(client.answer(asked, offsets), D, client.hyper.bits)
        largest = max(largest, float(np.abs(offsets + before).max()), float(np.abs(update).max()))
        if fate == COUNTED:
            client.counted = round_
            said, wanted = said + update, wanted + offsets
    return said, wanted, largest


@given(
    st.lists(st.tuples(st.sampled_from([COUNTED, LOST, AWAY]), learned), min_size=1, max_size=12),
    widths, st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_what_counted_and_what_is_left_are_what_was_learned_whichever_updates_are_lost(
    rounds: list[tuple[str, Vector]], bits: int, stochastic: bool, seed: int
) -> None:
    client = Client(Hyperparameters(bits=bits, stochastic=stochastic, seed=seed))
    said, wanted, largest = live(client, rounds)
    left = client.left(len(rounds) + 1)
    np.testing.assert_allclose(said + left, wanted, atol=1e-5 * max(largest, 1e-3), rtol=0)


@pytest.mark.parametrize("bits", [3, 2, 1])
@pytest.mark.parametrize("stochastic", [False, True])
def test_what_is_left_does_not_grow_so_that_the_mean_is_right_in_the_long_run(
    bits: int, stochastic: bool
) -> None:
    offsets = np.array([1.0, -0.4, 0.03, 0.2, 0.0], np.float32)
    client = Client(Hyperparameters(bits=bits, stochastic=stochastic))
    said, _, _ = live(client, [(COUNTED, offsets)] * 400)
    np.testing.assert_allclose(said / 400, offsets, atol=0.05)
    assert np.linalg.norm(client.left(401)) < 10 * np.linalg.norm(offsets)
    # To nearest and without memory the small ones are never said, or always as the mean.
    alone = Hyperparameters(bits=bits)
    once = decode(round_update(offsets, None, pb.Broadcast(), alone, 0), D, bits)
    assert np.abs(once - offsets).max() > 0.1


@given(learned, learned, widths, st.booleans())
def test_the_same_broadcast_again_is_answered_with_the_same_update(
    first: Vector, second: Vector, bits: int, stochastic: bool
) -> None:
    client = Client(Hyperparameters(bits=bits, stochastic=stochastic))
    live(client, [(COUNTED, first)])
    asked = client.broadcast(2)
    once = client.answer(asked, second)
    assert client.answer(asked, second) == once
    assert client.answer(asked, second) == once


def test_a_client_that_sat_out_rounds_says_what_was_left_when_it_comes_back() -> None:
    client = Client(Hyperparameters(bits=3))
    offsets = np.array([1, 0.4, -0.2, 0.1, 0], np.float32)
    live(client, [(COUNTED, offsets)])
    left = client.left(2)
    assert np.abs(left).max() > 0.01
    np.testing.assert_array_equal(client.left(9), left)


def test_nothing_applies_where_the_server_knows_of_no_update_or_of_another_broadcast() -> None:
    client = Client(Hyperparameters(bits=3))
    live(client, [(COUNTED, np.full(D, 0.3, np.float32)), (COUNTED, np.arange(D, dtype="f4"))])
    assert client.left(3).any()
    for counted in (0, 3, 7):  # started again; of a run that this client has no memory of
        asked = client.broadcast(3)
        asked.counted = counted
        assert client.memory(asked).applicable(asked, D) is None
    asked = client.broadcast(2)
    asked.coefficients = b"another"
    assert client.memory(asked).applicable(asked, D) is None
    asked = client.broadcast(3)
    assert client.memory(asked).applicable(asked, D + 1) is None


def test_runs_tasks_banks_widths_and_clients_that_share_a_folder_do_not_mix() -> None:
    client = Client(Hyperparameters(bits=3))
    names = set()
    for change in ("none", "bank", "task", "name", "source", "seed", "bits", "client"):
        asked, task, number = client.broadcast(1), pb.Task(name="a", source="digits"), 0
        if change in ("bank", "task"):
            setattr(asked, change, 99)
        elif change in ("seed", "bits"):
            setattr(asked.hyperparameters, change, 99)
        elif change == "client":
            number = 1
        elif change != "none":
            setattr(task, change, "other")
        names.add(Residuals.of(client.store, asked, task, number).name)
    assert len(names) == 8


@given(st.data())
def test_a_damaged_file_is_as_none(data: st.DataObject) -> None:
    client = Client(Hyperparameters(bits=3))
    live(client, [(COUNTED, np.arange(D, dtype="f4"))])
    assert isinstance(client.store, Held)
    (name,) = client.store.kept
    content = bytearray(client.store.kept[name])
    damage = data.draw(st.sampled_from(["cut", "longer", "flip", "noise"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if damage == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    damaged = {"cut": content[:at], "longer": content + b"x", "flip": content}
    client.store.kept[name] = bytes(damaged.get(damage, data.draw(st.binary(max_size=200))))
    assert not client.left(2).any()


def test_a_new_process_goes_on_with_the_file_of_the_one_before(tmp_path: Path) -> None:
    offsets = np.array([1, 0.4, -0.2, 0.1, 0], np.float32)
    hyper = Hyperparameters(bits=3)
    one = Client(hyper, FileStore(tmp_path))
    live(one, [(COUNTED, offsets)])
    again = Client(hyper, FileStore(tmp_path), counted=1)
    np.testing.assert_array_equal(again.left(2), one.left(2))
    assert again.left(2).any()
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_kept_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    client = Client(Hyperparameters(bits=3), FileStore(tmp_path / "file"))
    with pytest.raises(RecastError):
        client.answer(client.broadcast(1), np.arange(D, dtype="f4"))
