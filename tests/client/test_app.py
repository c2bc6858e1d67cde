"""The ClientApp never crashes: whatever comes is answered by one of our messages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from flwr.app import RecordDict
from hypothesis import given
from hypothesis import strategies as st

from protos import recast_v1_pb2 as pb
from tests.examples import examples

if TYPE_CHECKING:
    from conftest import Caller

KINDS = ["query.hello", "query.bank", "train", "evaluate"]
MALFORMED = pb.Refusal.REASON_MALFORMED


@examples(shared=True)
@given(body=st.binary(max_size=60), kind=st.sampled_from(KINDS))
def test_garbage_is_answered_by_a_refusal(caller: Caller, body: bytes, kind: str) -> None:
    reply = caller.call(b"\xff\xff" + body, kind)
    assert reply.refusal.reason == MALFORMED


@examples(shared=True)
@given(body=st.binary(max_size=60))
def test_any_bytes_are_answered(caller: Caller, body: bytes) -> None:
    assert caller.call(body).WhichOneof("body") is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_without_our_record_is_refused(
    caller: Caller, foreign: list[RecordDict], kind: str
) -> None:
    for content in foreign:
        assert caller.raw(content, kind).refusal.reason == MALFORMED


@pytest.mark.parametrize("sha256", [b"", b"\0" * 31, b"\0" * 300])
def test_a_hello_with_no_sha256_is_answered_as_not_held(ready: Caller, sha256: bytes) -> None:
    assert not ready.hello(sha256).hello.holds_bank


def test_the_tasks_of_the_last_greeting_are_remembered(ready: Caller) -> None:
    assert ready.train().WhichOneof("body") == "update"
    ready.tasks = ready.tasks[2:]
    ready.hello()
    assert ready.train().refusal.reason == pb.Refusal.REASON_UNKNOWN_TASK


def test_a_client_that_lost_its_state_says_so_and_recovers(ready: Caller) -> None:
    ready.state = RecordDict()
    assert ready.train().refusal.reason == pb.Refusal.REASON_UNKNOWN_TASK
    assert ready.hello().hello.holds_bank, "the bank survives in its file"
    assert ready.train().WhichOneof("body") == "update"


def test_a_setting_that_does_not_fit_is_one_line(ready: Caller) -> None:
    class Odd:
        def as_dict(self) -> dict[str, object]:
            return {"rounds": 0}

    ready.settings = Odd()  # type: ignore[assignment]
    refused = ready.train().refusal
    assert refused.reason == pb.Refusal.REASON_FAILED
    assert refused.detail == "rounds is 0: give at least 1"


def test_a_client_that_overran_the_deadline_is_told_in_its_own_log(
    ready: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    assert ready.train().WhichOneof("body") == "update"
    assert "late" not in caplog.text
    ready.settings = replace(ready.settings, deadline=1e-6)
    assert ready.train().WhichOneof("body") == "update"
    assert "the server refuses the update as late" in caplog.text
