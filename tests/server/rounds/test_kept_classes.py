"""The classes of a deployed classifier that does not name them: no client can change them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protos import recast_v1_pb2 as pb
from recast_core.classes import agreed_outputs, list_hash
from server.rounds.gathering import Heads

PETS = ("dog", "cat", "bird")
STRANGE = tuple(f"\x1b[2J{number}" for number in range(500))


def has(names: tuple[str, ...]) -> Callable[..., object]:
    """A client whose list is ``names``, and whose images have all these classes."""

    def script(question: pb.ToClient, right: pb.ToServer) -> pb.ToServer:
        if question.WhichOneof("body") == "hello":
            (task,), (told,) = question.hello.tasks, right.hello.tasks
            told.classes, told.class_hash = len(names), list_hash(names)
            if task.wants_classes:
                told.class_names.extend(names)
            elif task.classes and set(task.classes).issuperset(names):
                told.classes, told.class_hash = len(task.classes), task.class_hash
            elif task.classes:
                del right.hello.tasks[:]
                right.hello.lacks.add(task=1, reason=pb.Refusal.REASON_CLASSES, detail="others")
        return right

    return script


@pytest.mark.parametrize(
    "lie",
    [(*PETS, "horse"), STRANGE, ("a", "b", "c"), PETS[::-1], ("DOG", "cat", "bird"), ("dog",)],
    ids=["one more", "many", "others", "another order", "another spelling", "fewer"],
)
def test_one_client_neither_adds_a_class_nor_moves_one(
    federation: Callable[..., Any], lie: tuple[str, ...]
) -> None:
    heads = Heads("backbone", outputs=len(PETS))
    # The one that lies is asked first.
    made = federation(
        nodes=4, scripts={1: has(lie)} | {n: has(PETS) for n in (2, 3, 4)}, heads=heads
    )
    made.go()
    assert made.registry.class_lists(made.run) == {1: PETS}
    assert made.moved(1).any()
    fits = set(lie) <= set(PETS)
    assert made.reasons().get("classes", 0) == (0 if fits else 1)


def test_the_order_is_one_that_clients_have_and_parts_make_a_whole() -> None:
    assert agreed_outputs({PETS: 2, tuple(sorted(PETS)): 1}, 3) == PETS
    assert agreed_outputs({("cat", "dog"): 2, ("bird", "cat"): 1}, 3) == ("bird", "cat", "dog")
    assert agreed_outputs({("cat", "dog"): 2, ("bird", "cat"): 2, STRANGE: 1}, 3) == (
        "bird", "cat", "dog",
    )  # fmt: skip
    # Too few names for the classifier: clients refuse with both numbers.
    assert agreed_outputs({("cat", "dog"): 2}, 3) == ("cat", "dog")
    assert agreed_outputs({("cat", "cat", "dog"): 2}, 3) == ("cat", "cat", "dog")
