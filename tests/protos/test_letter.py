"""Letters: messages of ours within a process are Flower's in everything that can be asked."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from flwr.app import Message

from protos.content import Letter, from_content, letter_back, letters, to_content
from server.flower import number, server_identity

FACTS = (
    "run_id", "message_id", "src_node_id", "dst_node_id", "reply_to_message_id", "group_id",
    "message_type", "src_task_id", "dst_task_id", "delivered_at",
)  # fmt: skip


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def facts(message: Message) -> list[object]:
    return [getattr(message.metadata, name) for name in FACTS]


def test_a_letter_says_of_itself_what_flowers_message_says() -> None:
    made = list(letters(b"body", [5, 7], "train", "t/3"))
    assert all(isinstance(one, Letter) for one in made)
    for one, node in zip(made, (5, 7), strict=True):
        usual = Message(to_content(b"body"), node, "train", group_id="t/3")
        assert facts(one) == facts(usual)
        assert one.content == usual.content
        assert one.has_content()
        assert not one.has_error()


def test_an_answer_to_a_letter_is_what_flower_would_make_of_it() -> None:
    (asked,) = letters(b"body", [5], "train", "t/3")
    number(asked)
    told, usual = letter_back(b"answer", asked), Message(to_content(b"answer"), reply_to=asked)
    assert facts(told) == facts(usual)
    assert told.content == usual.content
    assert abs(told.metadata.created_at - time.time()) < 60
    assert told.metadata.ttl == pytest.approx(usual.metadata.ttl, abs=60)


def test_a_letter_has_a_name_of_its_own() -> None:
    first, second = letters(b"body", [5, 7], "train", "t/3")
    number(first)
    assert first.metadata.message_id
    assert not second.metadata.message_id


def test_what_was_put_in_a_letters_place_is_what_is_read() -> None:
    (one,) = letters(b"body", [5], "train", "t/3")
    assert from_content(one) == b"body"
    one.content["r"]["m"] = b"other"  # type: ignore[index]
    assert from_content(one) == b"other"
    one.content = to_content(b"third")
    assert from_content(one) == b"third"


def test_an_answer_to_flowers_own_message_is_flowers_own() -> None:
    asked = Message(to_content(b"body"), 5, "train")
    assert type(letter_back(b"answer", asked)) is Message
