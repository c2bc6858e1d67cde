"""Whatever one client sends, the run goes on with the others and every byte is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from protos import recast_v1_pb2 as pb
from server.record.ledger import Ledger
from tests.examples import examples

if TYPE_CHECKING:
    from conftest import Federation

numbers = st.integers(0, 2**32 - 1)
floats = st.floats(width=32)
updates = st.builds(
    pb.Update, bank=numbers, task=numbers, round=numbers, examples=numbers, scale=floats,
    coefficients=st.binary(max_size=40),
)  # fmt: skip
evaluations = st.builds(
    pb.Evaluation, bank=numbers, task=numbers, round=numbers, examples=numbers, correct=numbers,
    head_only_correct=numbers,
)  # fmt: skip
shares = st.builds(
    pb.TaskData, task=st.integers(0, 5), train_examples=numbers, test_examples=numbers,
    classes=numbers, local_classes=numbers,
)  # fmt: skip
hellos = st.builds(
    pb.Hello, holds_bank=st.booleans(), client=numbers, tasks=st.lists(shares, max_size=4)
)
heads = st.builds(pb.HeadStatistics, task=numbers, round=numbers, content=st.binary(max_size=99))
refusals = st.builds(
    pb.Refusal, reason=st.integers(0, 20), task=numbers, round=numbers, detail=st.text(max_size=30)
)
bodies = st.one_of(
    st.builds(pb.ToServer, update=updates),
    st.builds(pb.ToServer, evaluation=evaluations),
    st.builds(pb.ToServer, hello=hellos),
    st.builds(pb.ToServer, head=heads),
    st.builds(pb.ToServer, refusal=refusals),
).map(lambda message: message.SerializeToString())


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """What becomes of a right answer: nothing, or bytes that the server does not expect."""
    kind = draw(st.sampled_from(["right", "noise", "cut", "flip", "longer", "message"]))
    noise, where = draw(st.binary(min_size=1, max_size=30)), draw(st.integers(0, 200))
    body = draw(bodies)

    def mutate(right: bytes) -> bytes:
        place = where % max(1, len(right))
        match kind:
            case "noise":
                return noise
            case "cut":
                return right[:place]
            case "flip":
                changed = bytes([(right[place] if right else 0) ^ noise[0]])
                return right[:place] + changed + right[place + 1 :]
            case "longer":
                return right + noise
            case "message":
                return body
            case _:
                return right

    return mutate


@given(st.lists(mutations(), min_size=12, max_size=12), st.sampled_from([32, 8, 1]))
@examples(shared=True)
def test_no_bytes_of_one_client_end_the_run_or_the_others_part_in_it(
    federation: Callable[..., Federation], mutated: list[Callable[[bytes], bytes]], bits: int
) -> None:
    turn = iter(mutated * 9)

    def hostile(question: pb.ToClient, right: pb.ToServer) -> object:
        return next(turn)(right.SerializeToString())

    made = federation(nodes=3, scripts={2: hostile}, rounds=2, tasks=2, bits=bits)
    made.go()
    made.strategy.record_rest()
    for task in (1, 2):
        rounds = made.registry.rounds(made.run, task)
        assert [entry.round for entry in rounds] == [1, 2]
        assert all(entry.clients >= 2 for entry in rounds)
        assert np.isfinite(made.vector(task)).all()
    counted = Ledger(made.registry).totals(made.run, by=("client", "direction", "layer"))
    for (node, direction), size in made.grid.bytes.items():
        assert counted[str(node), direction, "message"] == size


@given(floats, st.sampled_from([32, 8]))
@examples(40, shared=True)
def test_numbers_of_any_size_from_one_client_end_nobodys_run(
    federation: Callable[..., Federation], number: float, bits: int
) -> None:
    def hostile(question: pb.ToClient, right: pb.ToServer) -> object:
        if right.WhichOneof("body") == "update":
            if bits == 32:
                count = len(right.update.coefficients) // 4
                right.update.coefficients = np.full(count, number, "<f4").tobytes()
            else:
                right.update.scale = number
        return right

    made = federation(nodes=3, scripts={2: hostile}, rounds=3, bits=bits)
    made.go()
    assert len(made.registry.rounds(made.run, 1)) == 3
    assert np.isfinite(made.vector(1)).all()
