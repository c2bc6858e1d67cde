"""Child processes with a log file each, none of which outlives the context that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from recast_core.closing import Closing
from recast_core.errors import RecastError

# For all that is asked to end, when everything is; for one whose peers are to hear of its end; and
# for what was killed. A busy machine takes its time.
GRACE, SECONDS_TO_END, SECONDS_TO_DIE = 8.0, 60.0, 60.0
_MARK = "RECAST_PROCESSES"


class Child:
    """A running program, the leader of its own process group."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self._stopped = False

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def said(self) -> str:
        """Everything that it has written to stdout and stderr."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float) -> None:
        """Return once it has written ``text``.

        Raises:
            RecastError: it ended, or did not within ``seconds``.
        """
        self.wait_until(lambda: text in self.said(), seconds, f"it said {text!r}")

    def wait_until(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Return once ``done()``; an end of the program or of ``seconds`` before is an error.

        Raises:
            RecastError: naming the program, what was waited for and the last line of its log.
        """
        deadline = time.monotonic() + seconds
        while True:
            running, late = self.running, time.monotonic() > deadline
            if done():  # after the look at the program, which may do it and end
                return
            if not running:
                raise self.failure(f"ended with code {self.process.returncode} before {what}")
            if late:
                raise self.failure(f"took over {seconds:.0f} s before {what}")
            time.sleep(0.05)

    def failure(self, what: str) -> RecastError:
        """An error about this program, with the last line of its log."""
        lines = [line.strip() for line in self.said().splitlines() if line.strip()]
        last = lines[-1] if lines else "it wrote nothing"
        return RecastError(f"{self.name} {what} ({last}): read {self.log}")

    def stop(self, kill: bool = False) -> None:
        """End the program and its group: asked first unless ``kill``, then forced."""
        if self._stopped:  # its number may be another's by now
            return
        if not kill:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(SECONDS_TO_END)
        self.signal(signal.SIGKILL)
        self.process.wait()
        self._stopped = True

    def signal(self, number: int) -> None:
        """Send a signal to the program and its group, if they are still there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class Processes(Closing):
    """Starts programs; on leaving, ends them and whatever they started."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        """Prepare to run programs with ``environment`` on top of this process's own."""
        self._logs = logs
        self._mark = uuid.uuid4().hex
        self._environment = {**os.environ, **environment, _MARK: self._mark}
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def close(self) -> None:
        """End what still runs."""
        running = [child for child in self._children if child.running]
        for child in running:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while any(child.running for child in running) and time.monotonic() < deadline:
            time.sleep(0.05)
        for child in self._children:
            child.stop(kill=True)
        # Until none is left: one may start another as it is looked for, and takes time to end.
        deadline, killed = time.monotonic() + SECONDS_TO_DIE, set[int]()
        while (marked := self._marked()) or any(map(_lives, killed)):
            for left in marked:
                # Between the look and the signal it may have ended by itself.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
            killed.update(marked)
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)

    def start(self, name: str, command: Sequence[str], cwd: Path | None = None) -> Child:
        """Start a program; its log is a file named after ``name``.

        Raises:
            RecastError: there is no such program.
        """
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    cwd=cwd,
                    start_new_session=True,
                )
            except OSError as error:
                raise RecastError(f"cannot start {command[0]} ({error}): install it") from error
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def run(self, name: str, command: Sequence[str], seconds: float = 300) -> Child:
        """Run a program to its end.

        Raises:
            RecastError: it cannot start, does not end in time or fails.
        """
        child = self.start(name, command)
        try:
            code = child.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise child.failure(f"took over {seconds:.0f} s") from error
        if code:
            raise child.failure(f"ended with code {code}")
        return child

    def _marked(self) -> list[int]:
        """Processes that carry this object's mark in their environment, where /proc tells.

        Flower's SuperLink puts its helpers in sessions of their own, out of reach of a group.
        """
        wanted = f"{_MARK}={self._mark}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # it ended, or belongs to somebody else
                continue
        return found


def _lives(pid: int) -> bool:
    """Whether a process has yet to end, where /proc tells; one that ends has no environment."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")
