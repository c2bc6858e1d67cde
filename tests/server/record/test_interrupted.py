"""An interrupt is raised when the transaction is over, wherever in it it came."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from recast_core.unbroken import unbroken
from server.record.registry import Registry

LAST, STEP = 4000, 53


def interrupt_at(call: int, work: Callable[[], object]) -> BaseException | None:
    """What ``work`` raises where SIGINT comes at its so many-th call of a Python function."""
    left = call

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        left -= event == "call"
        if left < 0:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(count)
    try:
        work()
    except KeyboardInterrupt as error:
        return error
    finally:
        sys.setprofile(None)
    return None


def test_wherever_it_comes_the_next_transaction_finds_nobody_in_its_way(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {})
        # Kept, as its frames are by who records how the run ended.
        raised = []
        for call in range(0, LAST, STEP):
            raised.append(interrupt_at(call, partial(registry.add_task, run, f"t{call}")))
            registry.finish_run(run, "interrupted")
        assert raised[0] is not None
        assert raised[-1] is None, "so many calls were not all of them"


def test_a_transaction_is_finished_before_its_interrupt_is_raised(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {})
        done = []

        def close() -> None:
            with registry.writing("a test") as session:
                os.kill(os.getpid(), signal.SIGINT)
                registry.existing(session, run).closed = True
                done.append("whole")

        with pytest.raises(KeyboardInterrupt):
            close()
        assert done == ["whole"]
        assert registry.is_closed(run)


def test_signals_are_heard_as_before_when_it_is_over_and_other_threads_hold_none_back() -> None:
    def interrupted() -> None:
        with unbroken():
            with unbroken():
                os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    found = []

    def work() -> None:
        with unbroken():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
