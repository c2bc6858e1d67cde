"""A crew of actors on a Ray cluster that is there already: many machines, many GPUs."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.engines.crew.base import (
    TRIES,
    Crew,
    CrewError,
    Item,
    Post,
    lost_too_often,
    out_of_memory,
    short_of_memory,
)
from experiments.engines.ray import give_time

# A cluster that is busy with something else has no room for a worker for so long.
READY_SECONDS = 120.0
_REACH_SECONDS = 5.0


class Actor:
    """A worker's process on the cluster."""

    def __init__(self, post: Post) -> None:
        from experiments.engines.crew.workshop import Workshop

        self._shop = Workshop(post)

    def ready(self) -> int:
        """Its process id, once it has come this far."""
        return os.getpid()

    def place(self, item: Item, *arrays: NDArray[Any]) -> None:
        """Hold an item, whose arrays Ray's store has handed over: mapped, not copied."""
        named = dict(zip(item.fields["arrays"], arrays, strict=True))
        self._shop.place(Item(item.kind, item.name, item.fields, named))

    def work(self, parcel: bytes) -> bytes:
        """Do a parcel."""
        return self._shop.work(parcel)


@dataclass(eq=False)
class _Worker:
    """An actor and what it holds."""

    actor: Any
    process: int = 0
    holds: dict[tuple[str, str], Item] = field(default_factory=dict)


class RayCrew(Crew):
    """Actors on the cluster at an address."""

    def __init__(self, count: int, address: str, post: Post) -> None:
        """Join the cluster and start the workers.

        Args:
            count: how many; 0 for one on each GPU, or else on each machine.
            address: as `ray.init` takes it: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.
            post: what they are started with.

        Raises:
            CrewError: no Ray, no cluster, no package of ours on it, or no room.
        """
        if find_spec("ray") is None:
            raise CrewError("--ray needs Ray: `pip install 'recast-fl[ray]'`, or leave --ray out")
        _reach(address)
        if address == "local":
            give_time()
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns
        import ray

        self._ray: Any = ray
        self._address = address
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _absent(address, error) from error
        try:
            own = replace(post, path=())
            self._post, self._wanted, self.count = self._plan(count, own)
            self._items: dict[tuple[str, str], tuple[Item, list[Any]]] = {}
            self._workers = [self._start() for _ in range(self.count)]
            self._await(self._workers)
        except BaseException:
            ray.shutdown()
            raise

    @property
    def processes(self) -> list[int]:
        """The process ids of the workers, each on its machine."""
        return [worker.process for worker in self._workers]

    def place(self, item: Item) -> None:
        """See ``Crew``; arrays go into Ray's store once, and machines fetch them from there."""
        before = self._items.get(item.key)
        if before is not None and _without(before[0]) == dict(item.fields):
            return
        fields = {**item.fields, "arrays": tuple(item.arrays)}
        references = [self._ray.put(np.asarray(one)) for one in item.arrays.values()]
        self._items[item.key] = Item(item.kind, item.name, fields), references

    def work(self, parcels: Sequence[bytes], done: Callable[[int], None]) -> list[bytes]:
        """See ``Crew``."""
        found: list[bytes | None] = [None] * len(parcels)
        lost = [0] * len(parcels)
        going = {self._hand(index, parcel): index for index, parcel in enumerate(parcels)}
        while going:
            ready, _ = self._ray.wait(list(going), num_returns=1)
            for reference in ready:
                index = going.pop(reference)
                try:
                    found[index] = self._ray.get(reference)
                except self._ray.exceptions.RayTaskError as error:
                    if short_of_memory(error):
                        raise out_of_memory(self.count) from error
                    raise RuntimeError(f"a worker failed:\n{error}") from error
                except self._ray.exceptions.RayError as error:
                    lost[index] += 1
                    if lost[index] >= TRIES:
                        raise lost_too_often(self.count, _line(error)) from error
                    self._replace(index)
                    going[self._hand(index, parcels[index])] = index
                else:
                    done(index)
        return [one for one in found if one is not None]

    def close(self) -> None:
        """See ``Crew``; the cluster stays."""
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers = []
        self._ray.shutdown()

    def _plan(self, count: int, post: Post) -> tuple[Post, Mapping[str, float], int]:
        """What a worker is started with and asks for, and how many there are."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cards = int(sum(machine.get("GPU", 0) for machine in machines))
        if cards and post.settings.device in ("auto", "cuda"):
            count = count or cards
            if count > cards:
                raise CrewError(f"--workers {count} and {cards} GPUs on the cluster: ask for fewer")
            return post, {"num_cpus": 1, "num_gpus": 1}, count
        count = count or len(machines)
        cores = [int(machine.get("CPU", 0)) for machine in machines]
        for each in range(max(cores, default=0), 0, -1):
            if sum(own // each for own in cores) >= count:
                return replace(post, threads=each), {"num_cpus": each}, count
        raise CrewError(
            f"--workers {count} and {sum(cores)} CPUs on the cluster: ask for fewer workers"
        )

    def _start(self) -> _Worker:
        remote: Any = self._ray.remote(Actor)
        remote = remote.options(**self._wanted, scheduling_strategy="SPREAD")
        return _Worker(remote.remote(self._post))

    def _await(self, workers: Sequence[_Worker]) -> None:
        """Wait until the workers are there.

        Raises:
            CrewError: they cannot be.
        """
        until = time.monotonic() + READY_SECONDS
        for worker, answer in [(one, one.actor.ready.remote()) for one in workers]:
            try:
                left = max(0.0, until - time.monotonic())
                worker.process = self._ray.get(answer, timeout=left)
            except self._ray.exceptions.GetTimeoutError as error:
                raise CrewError(
                    f"the Ray cluster at {self._address} has no room for {self.count} workers of "
                    f"{dict(self._wanted)} in {READY_SECONDS:g} s: ask for fewer, or wait for "
                    "other jobs"
                ) from error
            except self._ray.exceptions.RayError as error:
                raise self._unable(error) from error

    def _unable(self, error: Exception) -> CrewError:
        text = str(error)
        if "No module named" in text or "ModuleNotFoundError" in text:
            return CrewError(
                f"the machines of the Ray cluster at {self._address} lack the package recast-fl: "
                "install this version of it on each of them, in the environment that Ray runs in"
            )
        if short_of_memory(error):
            return out_of_memory(self.count)
        return CrewError(f"no worker on the Ray cluster at {self._address}: {_line(error)}")

    def _replace(self, index: int) -> None:
        self._ray.kill(self._workers[index].actor)
        self._workers[index] = self._start()
        self._await([self._workers[index]])

    def _hand(self, index: int, parcel: bytes) -> Any:
        """Give a worker what it lacks and then a parcel: an actor does one thing after another."""
        worker = self._workers[index]
        for key, (item, references) in self._items.items():
            if worker.holds.get(key) is not item:
                worker.actor.place.remote(item, *references)
                worker.holds[key] = item
        return worker.actor.work.remote(parcel)


def _reach(address: str) -> None:
    """See that somebody listens at an address: Ray itself would take three minutes to give up.

    Raises:
        CrewError: nobody does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _absent(address, error) from error


def _absent(address: str, error: Exception) -> CrewError:
    return CrewError(
        f"no Ray cluster at {address} ({_line(error)}): start one with `ray start --head`, or "
        "leave --ray and RAY_ADDRESS out"
    )


def _without(item: Item) -> dict[str, Any]:
    return {name: value for name, value in item.fields.items() if name != "arrays"}


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
