"""Threads that share a model: each answers as its own task, or is told that it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from recast_core import RecastConfig, RecastError, RecastModel, TaskLibrary, attach, fit, mimic
from recast_core.backbones.cifar_resnet import CifarResNet

IMAGES = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
NAMES = ("a", "b", "c")


def session(sets: int = 1) -> tuple[RecastModel, TaskLibrary, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = CifarResNet(8, 4).eval()
    bank = mimic(model, RecastConfig(("layer?.0.conv*",), sets=sets))
    net, tasks = attach(model, bank), TaskLibrary(bank)
    wanted = {}
    for classes, name in enumerate(NAMES, 2):
        tasks.add(name, bank.initial_vector + torch.randn(bank.sent), nn.Linear(64, classes))
        tasks.activate(net, name)
        wanted[name] = answer(net)
    tasks.deactivate(net)
    return net, tasks, wanted


@torch.no_grad()
def answer(net: RecastModel) -> Tensor:
    return net(IMAGES)


def at_once(work: Callable[[int], None], threads: int = 4, times: int = 30) -> None:
    """Run ``work(thread)`` so often in each of the threads; the first exception comes out."""
    ready = threading.Barrier(threads)

    def repeat(thread: int) -> None:
        ready.wait()
        for _ in range(times):
            work(thread)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(repeat, thread) for thread in range(threads)]:
            done.result()


@pytest.mark.parametrize("sets", [1, 2])
def test_each_thread_answers_as_the_task_that_it_uses(sets: int) -> None:
    net, tasks, wanted = session(sets)
    before = answer(net)

    def work(thread: int) -> None:
        name = NAMES[thread % 3]
        with tasks.use(net, name) as used:
            assert used is net
            assert torch.equal(answer(net), wanted[name])
            with torch.no_grad():
                assert torch.equal(net.current_head(net.features(IMAGES)), wanted[name])

    at_once(work)
    assert torch.equal(answer(net), before), "the model itself is as it was"


def test_coroutines_answer_as_the_task_that_they_use() -> None:
    net, tasks, wanted = session()

    async def work(name: str) -> None:
        for _ in range(5):
            with tasks.use(net, name):
                await asyncio.sleep(0)
                assert torch.equal(answer(net), wanted[name])
                found = await asyncio.to_thread(answer, net)
                assert torch.equal(found, wanted[name])

    async def main() -> None:
        await asyncio.gather(*map(work, NAMES))

    asyncio.run(main())


def test_activating_from_several_coroutines_raises_or_is_right() -> None:
    net, tasks, wanted = session()
    raised: list[str] = []

    async def work(name: str) -> None:
        tasks.activate(net, name)
        assert torch.equal(answer(net), wanted[name]), "nobody came between"
        await asyncio.sleep(0)
        try:
            assert torch.equal(answer(net), wanted[name])
        except RecastError as error:
            raised.append(str(error))

    async def main() -> None:
        await asyncio.gather(*map(work, NAMES))
        # One after the other, and in a worker thread of its own, as web servers do it.
        for name in NAMES:
            tasks.activate(net, name)
            assert torch.equal(await asyncio.to_thread(answer, net), wanted[name])

    asyncio.run(main())
    assert len(raised) == 2, "all but the last to activate"
    assert all("tasks.use(net, NAME)" in message for message in raised)


def test_uses_nest_and_end_with_an_exception() -> None:
    net, tasks, wanted = session()
    tasks.activate(net, "c")
    with tasks.use(net, "a"):
        with tasks.use(net, "b"):
            assert torch.equal(answer(net), wanted["b"])
        assert torch.equal(answer(net), wanted["a"])
        with contextlib.suppress(KeyError), tasks.use(net, "b"):
            raise KeyError
        assert torch.equal(answer(net), wanted["a"])
    assert torch.equal(answer(net), wanted["c"])


def test_a_mixed_batch_disturbs_no_thread_and_none_disturbs_it() -> None:
    net, tasks, wanted = session()
    tasks.activate(net, "c")
    names = ["a", "b", "c", "c", "b", "a"]

    def work(thread: int) -> None:
        if thread % 2:
            for index, logits in enumerate(tasks.mixed(net, IMAGES, names)):
                torch.testing.assert_close(logits, wanted[names[index]][index])
        else:
            with tasks.use(net, "a"):
                assert torch.equal(answer(net), wanted["a"])

    at_once(work)
    assert torch.equal(answer(net), wanted["c"])


def test_activating_from_several_threads_raises_or_is_right() -> None:
    net, tasks, wanted = session()
    raised, right = [], []
    left, met = dict.fromkeys(range(4), 1), threading.Barrier(4)

    def work(thread: int) -> None:
        name = NAMES[thread % 3]
        try:
            tasks.activate(net, name)
            if left[thread]:
                left[thread] -= 1
                met.wait(600)
            found = answer(net)
        except RecastError as error:
            raised.append(str(error))
        else:
            right.append(torch.equal(found, wanted[name]))

    at_once(work, times=60)
    assert all(right)
    assert len(raised) >= 3, "of four that met, one activated last"
    assert all("tasks.use(net, NAME)" in message for message in raised)


def test_an_answer_that_another_thread_came_between_raises_whenever_it_did() -> None:
    net, tasks, _ = session()

    def elsewhere(name: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(tasks.activate, net, name).result()

    tasks.activate(net, "a")
    elsewhere("b")
    with pytest.raises(RecastError, match=r"tasks\.use"):
        net(IMAGES)
    tasks.activate(net, "a")
    # In the middle of a forward pass.
    handle = net.backbone.bn1.register_forward_hook(lambda *args: elsewhere("b"))
    for call in (net, net.features):
        tasks.activate(net, "a")
        with pytest.raises(RecastError, match=r"tasks\.use"):
            call(IMAGES)
    handle.remove()


def test_threads_that_take_turns_and_threads_that_only_read_are_left_alone() -> None:
    net, tasks, wanted = session()
    lock = threading.Lock()

    def work(thread: int) -> None:
        name = NAMES[thread % 3]
        with lock:
            tasks.activate(net, name)
            assert torch.equal(answer(net), wanted[name])

    at_once(work)
    tasks.activate(net, "b")
    at_once(lambda thread: torch.testing.assert_close(answer(net), wanted["b"]))


def test_a_task_in_use_cannot_be_set_trained_or_merged() -> None:
    net, tasks, wanted = session()
    labels = torch.arange(6) % 2
    with tasks.use(net, "a"):
        for change in (
            lambda: tasks.activate(net, "b"),
            lambda: net.coefficients.load(),
            lambda: fit(net, IMAGES, labels, 2),
            lambda: net.merge(),
        ):
            with pytest.raises(RecastError, match="in use"):
                change()
        assert torch.equal(answer(net), wanted["a"])
    fit(net, IMAGES, labels, 2)


def test_a_copy_is_its_own() -> None:
    net, tasks, wanted = session()
    tasks.activate(net, "a")
    for other in (net.copy(), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        with tasks.use(net, "b"):
            assert torch.equal(answer(other), wanted["a"])
        tasks.activate(other, "c")
        assert torch.equal(answer(net), wanted["a"])
