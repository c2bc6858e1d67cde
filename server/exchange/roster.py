"""Who is in the federation: greet nodes, and send the bank to those that lack it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.classes import Names, agreed, agreed_outputs, some, strangers
from recast_core.start import Start
from recast_core.text import how_many, plain
from server.exchange.class_lists import by_hash, within_reason
from server.exchange.collect import Collector
from server.exchange.greeter import Greeter
from server.exchange.observer import Observer
from server.exchange.share import Share
from server.exchange.slices import slices
from server.exchange.traffic import MESSAGE_TYPES, Topic, Traffic, code

_OUTDATED = "its version cannot keep an earlier task's head: upgrade recast there"

logger = logging.getLogger("recast.server")
LOOK_SECONDS = 2.0


class Roster:
    """The nodes that hold the bank, and their shares of each task by its number.

    A node without images of any task takes no part: it is greeted once, and sent nothing more.
    """

    def __init__(
        self, start: Start, traffic: Traffic, collector: Collector, observer: Observer
    ) -> None:
        self._greeter = Greeter(start, traffic, collector)
        self._tasks: Sequence[pb.Task] = ()
        self._keeping: set[int] = set()
        self._traffic = traffic
        self._collector = collector
        self._observer = observer
        self._shares: dict[int, dict[int, Share]] = {}
        self._numbers: dict[int, int] = {}
        self._lacks: dict[int, dict[int, tuple[str, str]]] = {}
        self._untold: list[tuple[int, str]] = []

    @property
    def nodes(self) -> Mapping[int, Mapping[int, Share]]:
        """Every node that is ready, with its shares."""
        return self._shares

    def announce(self, tasks: Sequence[pb.Task], classes: Mapping[int, Names]) -> None:
        """Take ``tasks`` for the list of all; every node is greeted with it again.

        ``classes`` are the class lists that are known, by the task's number.
        """
        self._tasks = tasks
        self._keeping = {task.id for task in tasks if task.keeps_head}
        for number, names in classes.items():
            self._greeter.lists.fix(number, names)
        self._shares.clear()

    def lacking(self, task: int) -> list[tuple[str, str]]:
        """Why nodes take no part in a task: a code and a line of text each."""
        return list(self._lacks.get(task, {}).values())

    def numbers(self) -> dict[int, int]:
        """What each ready node goes by on any grid: the number that it gave, where that is its own.

        A node that gave none, or one that another gave too, goes by its node id.
        """
        given = {node: self._numbers[node] for node in self._shares}
        counts = Counter(given.values())
        return {n: own if own and counts[own] == 1 else n for n, own in given.items()}

    def refresh(self, grid: Grid) -> None:
        """Greet nodes that are new or were forgotten; drop those that left.

        A node that still owes an answer to an earlier greeting is not greeted again, so that one
        that hangs costs the others one deadline and not one in each round.
        """
        present = sorted(grid.get_node_ids())
        self._traffic.take_from(grid)
        forgetful = self._traffic.take_forgetful()
        for node in sorted(forgetful & set(self._shares)):
            self._greeter.forgot(node)
        for gone in (set(self._shares) - set(present)) | forgetful:
            self._shares.pop(gone, None)
        silent = set().union(
            *(self._collector.waiting(MESSAGE_TYPES[k]) for k in ("hello", "bank"))
        )
        silent |= {node for node in present if self._greeter.barred(node)}
        new = [node for node in present if node not in self._shares and node not in silent]
        if not new:
            return
        lacking = sum(self._greet(grid, nodes) for nodes in slices(grid, new))
        self._tell(grid)
        self._observer.joined(sum(map(bool, self._shares.values())), lacking)

    def _greet(self, grid: Grid, nodes: Sequence[int]) -> int:
        """Greet nodes and enter those that are ready; how many lacked the bank."""
        hellos = self._greeter.greet(grid, self._tasks, nodes)
        hellos |= self._explain(grid, hellos)
        lacking = [node for node, hello in hellos.items() if hello.tasks and not hello.holds_bank]
        ready = {node for node, hello in hellos.items() if hello.holds_bank or not hello.tasks}
        for node in sorted(ready | self._greeter.deliver(grid, lacking)):
            self._enter(node, hellos[node])
        return len(lacking)

    def agree(self, grid: Grid, task: int, outputs: int = 0) -> Names:
        """The class list of a task, agreed now by all nodes that have images of it.

        One node for each list that was announced is asked for it, and others of the same list where
        it does not say. A list that would make the task's too long is left out with its nodes.
        Nodes with another than what comes out are sent it, and map their ids by name or are refused
        by name. From then on it stays. ``outputs`` are those of a kept classifier, 0 where there is
        none.

        Returns:
            The names in the order of their ids; none where no node has names.
        """
        lists = self._announced(grid, task)
        if not lists:
            return ()
        names = agreed_outputs(lists, outputs) if outputs else agreed(lists)
        if (apart := strangers(lists)) is not None:
            one, other = (some(each, 3) for each in apart)
            logger.warning(
                "task %s: clients have no class in common (%s; %s): they count as %s, so "
                "write the names alike if some are the same", self._topic(task).task, one, other,
                how_many(len(names), "class"),
            )  # fmt: skip
        self.settle(grid, task, names)
        return names

    def settle(self, grid: Grid, task: int, names: Names) -> None:
        """Take ``names`` for the class list of a task, and have those told who count otherwise."""
        self._greeter.lists.fix(task, names)
        for nodes in slices(grid, [node for node, own in self._shares.items() if task in own]):
            own = {
                node: pb.Hello(tasks=[_as_told(task, self._shares[node][task])]) for node in nodes
            }
            told = self._explain(grid, own)
            for node in own:
                if node in told:
                    self._enter(node, told[node])
                elif not self._greeter.lists.fits(own[node].tasks[0]):
                    self._leave_out(node, task, "classes", "its class ids are not the task's")
        self._tell(grid)

    def _announced(self, grid: Grid, task: int) -> dict[Names, int]:
        """How many nodes have each list of a task; nodes whose list is not to be had are left out.

        A node that answers with what is no such list harms itself alone.
        """
        hashes = {node: own[task].class_hash for node, own in self._shares.items() if task in own}
        groups = by_hash(hashes)
        names_of, liars = self._greeter.lists_of(grid, self._tasks, task, groups)
        found: dict[Names, list[int]] = {}
        for announced, nodes in groups.items():
            for node in nodes:
                if node in liars:
                    self._leave_out(node, task, "classes", liars[node])
                elif announced in names_of:
                    found.setdefault(names_of[announced], []).append(node)
                else:
                    self._leave_out(node, task, "classes", "no list of its class names came")
        lists, odd = within_reason({names: len(nodes) for names, nodes in found.items()})
        for names in odd:
            for node in found[names]:
                detail = f"a list of {len(names)} classes, more than a task takes with the others'"
                self._leave_out(node, task, "classes", detail)
        return lists

    def _explain(self, grid: Grid, hellos: Mapping[int, pb.Hello]) -> dict[int, pb.Hello]:
        """Greet again, with the task's list, the nodes whose own lists are others."""
        strangers, lists = [], self._greeter.lists
        for node, hello in hellos.items():
            tasks = [d.task for d in hello.tasks if d.class_hash and not lists.fits(d)]
            if tasks:
                lists.tell(node, tasks)
                strangers.append(node)
        return self._greeter.greet(grid, self._tasks, strangers)

    def _enter(self, node: int, hello: pb.Hello) -> None:
        """Take down what a node has, and refuse what it lacks or counts otherwise."""
        known = {task.id for task in self._tasks}
        self._numbers[node] = hello.client
        self._shares[node] = {}
        for data in hello.tasks:
            if data.task not in known:
                continue
            if not self._greeter.lists.fits(data):
                self._leave_out(node, data.task, "classes", "its class ids are not the task's")
                continue
            if data.task in self._keeping and not data.keeps_head:
                self._leave_out(node, data.task, "outdated", _OUTDATED)
                continue
            self._shares[node][data.task] = Share(
                data.train_examples,
                data.test_examples,
                data.classes,
                data.local_classes,
                data.class_hash,
            )
        for lack in hello.lacks:
            if lack.task in known:
                self._leave_out(node, lack.task, code(lack.reason), lack.detail)

    def _leave_out(self, node: int, task: int, reason: str, detail: str) -> None:
        """Refuse a node for one task, once however often it says so."""
        self._shares[node].pop(task, None)
        said, lacks = (reason, plain(detail)), self._lacks.setdefault(task, {})
        if lacks.get(node) != said:
            lacks[node] = said
            topic = self._topic(task)
            self._traffic.refuse(node, topic, reason, detail)
            text = f"task {topic.task} goes on without this client ({reason}): {said[1]}"
            self._untold.append((node, text))

    def _tell(self, grid: Grid) -> None:
        """Tell nodes that were left out, in their own logs."""
        for node, text in self._untold:
            self._traffic.tell(grid, node, text)
        self._untold.clear()

    def _topic(self, task: int) -> Topic:
        return Topic(next((known.name for known in self._tasks if known.id == task), None))

    def await_nodes(self, grid: Grid, wanted: Collection[str], seconds: float) -> None:
        """Greet who is there until all of ``wanted`` are ready, or some seconds have passed."""
        ends = time.monotonic() + seconds
        while True:
            self.refresh(grid)
            away = len(set(wanted) - {str(node) for node in self._shares})
            left = ends - time.monotonic()
            if not away or left <= 0:
                return
            logger.info("waiting for %s of those that took part", how_many(away, "client"))
            time.sleep(min(LOOK_SECONDS, left))


def _as_told(task: int, share: Share) -> pb.TaskData:
    return pb.TaskData(task=task, classes=share.classes, class_hash=share.class_hash)
