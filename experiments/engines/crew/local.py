"""A crew of processes on this machine."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from experiments.command.program import environment
from experiments.engines.crew.base import (
    TRIES,
    Crew,
    CrewError,
    Item,
    Post,
    lost_too_often,
    out_of_memory,
)
from recast_core.pulse import advance

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(eq=False)
class _Worker:
    """A process, what it holds, and what it is doing."""

    process: subprocess.Popen[bytes]
    connection: Connection
    errors: IO[bytes]
    holds: dict[tuple[str, str], Item] = field(default_factory=dict)

    def ended(self) -> str:
        """How the process ended: its signal or status, and the last line that it wrote."""
        self.process.kill()
        status = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"{how}: {lines[-1][:200]}" if lines and status > 0 else how

    def close(self) -> None:
        """End it, whatever it is doing."""
        self.connection.close()
        self.process.kill()
        self.process.wait()
        self.errors.close()


class LocalCrew(Crew):
    """Processes of this machine; the i-th has the i-th GPU where there are any."""

    def __init__(self, count: int, post: Post) -> None:
        """Start ``count`` workers at ``post``; they get ready while this process goes on."""
        self.count = count
        self._posts = [_at(post, index, count) for index in range(count)]
        self._folder = Path(tempfile.mkdtemp(prefix="recast-crew-"))
        self._numbers = itertools.count()
        self._items: dict[tuple[str, str], Item] = {}
        self._folders: dict[Item, str] = {}
        # Whoever reads its end learns when this process is gone.
        self._lifeline, self._held_open = os.pipe()
        self._workers = [self._start(index) for index in range(count)]

    @property
    def processes(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def place(self, item: Item) -> None:
        """See ``Crew``; arrays are written once, into files that all workers map."""
        before = self._items.get(item.key)
        if before is not None and before.fields == item.fields:
            return
        if before is not None and (folder := self._folders.pop(before)):
            shutil.rmtree(folder, ignore_errors=True)
        folder = ""
        if item.arrays:
            folder = str(self._folder / str(next(self._numbers)))
            _write(Path(folder), item)
        kept = replace(item, arrays={})
        self._items[item.key], self._folders[kept] = kept, folder

    def work(self, parcels: Sequence[bytes], done: Callable[[int], None]) -> list[bytes]:
        """See ``Crew``."""
        found: list[bytes | None] = [None] * len(parcels)
        lost = [0] * len(parcels)
        for index, parcel in enumerate(parcels):
            self._hand(index, parcel)
        while left := [index for index, one in enumerate(found) if one is None]:
            ready = wait([self._workers[index].connection for index in left])
            for index in left:
                worker = self._workers[index]
                if worker.connection not in ready:
                    continue
                try:
                    kind, content = worker.connection.recv()
                except (EOFError, OSError):
                    lost[index] += 1
                    self._replace(index, lost[index])
                    self._hand(index, parcels[index])
                    continue
                if kind == "done":
                    found[index] = content
                    done(index)
                elif kind == "advanced":
                    advance(content)
                else:
                    self._fail(kind, content)
        return [one for one in found if one is not None]

    def close(self) -> None:
        """See ``Crew``."""
        for worker in self._workers:
            worker.close()
        self._workers = []
        for end in (self._lifeline, self._held_open):
            os.close(end)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _fail(self, kind: str, content: str) -> None:
        """Raise what a worker could not do; the others' answers must not pass for later ones."""
        for index, worker in enumerate(self._workers):
            worker.close()
            self._workers[index] = self._start(index)
        if kind == "memory":
            raise out_of_memory(self.count)
        raise RuntimeError(f"a worker failed:\n{content}")

    def _start(self, index: int) -> _Worker:
        ours, theirs = socket.socketpair()
        errors = tempfile.TemporaryFile()  # noqa: SIM115  # the worker's, for as long as it lives
        post, device = self._posts[index]
        with theirs:
            process = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "experiments.engines.crew.worker",
                    str(theirs.fileno()), str(self._lifeline),
                ],
                env={**os.environ, **environment(), **device},
                pass_fds=(theirs.fileno(), self._lifeline),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # an interrupt is for this process, which ends them all
            )  # fmt: skip
        worker = _Worker(process, Connection(ours.detach()), errors)
        _tell(worker, "post", post)
        return worker

    def _replace(self, index: int, times: int) -> None:
        how = self._workers[index].ended()
        self._workers[index].close()
        if times >= TRIES:
            self._workers[index] = self._start(index)
            raise lost_too_often(self.count, how)
        self._workers[index] = self._start(index)

    def _hand(self, index: int, parcel: bytes) -> None:
        """Give a worker what it lacks, and a parcel; one that is gone is noticed on reading."""
        worker = self._workers[index]
        for key, item in self._items.items():
            if worker.holds.get(key) is not item:
                _tell(worker, "place", (item, self._folders[item]))
                worker.holds[key] = item
        _tell(worker, "work", parcel)


def _tell(worker: _Worker, kind: str, content: Any) -> None:
    try:
        worker.connection.send((kind, content))
    except OSError:
        return


def _write(folder: Path, item: Item) -> None:
    try:
        folder.mkdir()
        for name, array in item.arrays.items():
            np.save(folder / f"{name}.npy", array)
    except OSError as error:
        raise CrewError(
            f"the images of {item.name} for the workers: {error.strerror}; make room in "
            f"{folder.parent.parent}, or set TMPDIR to a folder that has some"
        ) from error


def _at(post: Post, index: int, count: int) -> tuple[Post, Mapping[str, str]]:
    """The post of a worker, and what its environment says of devices."""
    threads = max(1, post.threads // count)
    own = replace(post, threads=threads)
    device = {"OMP_NUM_THREADS": str(threads)}
    settings = post.settings
    if settings.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return own, device
    told = os.environ.get(_VISIBLE, "")
    cards = [one for one in told.split(",") if one] or list(
        map(str, range(torch.cuda.device_count()))
    )
    return own, {**device, _VISIBLE: cards[index % len(cards)]}
