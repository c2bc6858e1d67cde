"""Who is in the federation: greet nodes, and send the bank to those that lack it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.classes import Names, agreed, agreed_outputs
from recast_core.errors import RecastError
from recast_core.start import Start
from recast_core.text import plain
from recast_core.wire.messages import bank_ref
from server.exchange.class_lists import ClassLists, by_hash, names_in
from server.exchange.collect import Collector
from server.exchange.deliveries import Deliveries
from server.exchange.observer import Observer
from server.exchange.traffic import MESSAGE_TYPES, Reply, Topic, Traffic, code, is_answer

# A list of a few thousand names; a reply that was not asked for one is shorter.
_LONGEST_LIST = 1 << 20

logger = logging.getLogger("recast.server")
LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Share:
    """What one node has of one task: counts of images, and of classes in its training images.

    ``class_hash`` is that of the list of names that its class ids count in, 0 where it has none.
    """

    train_examples: int
    test_examples: int
    classes: int
    local_classes: int
    class_hash: int = 0

    @property
    def can_train(self) -> bool:
        """Whether there is something to tell apart."""
        return self.train_examples > 0 and self.local_classes > 1

    @property
    def can_evaluate(self) -> bool:
        """Whether a local head can be fitted and measured."""
        return self.can_train and self.test_examples > 0


def agreed_classes(shares: Iterable[Share]) -> int:
    """The number of classes that most nodes announce of a task; of two, the smaller."""
    counted = Counter(share.classes for share in shares)
    most = max(counted.values())
    return min(classes for classes, count in counted.items() if count == most)


class Roster:
    """The nodes that hold the bank, and their shares of each task by its number.

    A node without images of any task takes no part: it is greeted once, and sent nothing more.
    """

    def __init__(
        self, start: Start, traffic: Traffic, collector: Collector, observer: Observer
    ) -> None:
        self._content = start.to_bytes()
        self._start = start
        self._tasks: Sequence[pb.Task] = ()
        self._traffic = traffic
        self._collector = collector
        self._observer = observer
        self._lists = ClassLists()
        self._deliveries = Deliveries()
        self._shares: dict[int, dict[int, Share]] = {}
        self._numbers: dict[int, int] = {}
        self._lacks: dict[int, dict[int, str]] = {}

    @property
    def nodes(self) -> Mapping[int, Mapping[int, Share]]:
        """Every node that is ready, with its shares."""
        return self._shares

    def announce(self, tasks: Sequence[pb.Task], classes: Mapping[int, Names]) -> None:
        """Take ``tasks`` for the list of all; every node is greeted with it again.

        ``classes`` are the class lists that are known, by the task's number.
        """
        self._tasks = tasks
        for number, names in classes.items():
            self._lists.fix(number, names)
        self._shares.clear()

    def lacking(self, task: int) -> list[str]:
        """Why nodes take no part in a task, a reason each."""
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
        for gone in (set(self._shares) - set(present)) | self._traffic.take_forgetful():
            self._shares.pop(gone, None)
        silent = set().union(
            *(self._collector.waiting(MESSAGE_TYPES[k]) for k in ("hello", "bank"))
        )
        silent |= {node for node in present if self._deliveries.barred(node)}
        new = [node for node in present if node not in self._shares and node not in silent]
        if not new:
            return
        hellos = self._greet(grid, new)
        hellos |= self._explain(grid, hellos)
        lacking = [node for node, hello in hellos.items() if hello.tasks and not hello.holds_bank]
        ready = {node for node, hello in hellos.items() if hello.holds_bank or not hello.tasks}
        for node in sorted(ready | self._deliver(grid, lacking)):
            self._enter(node, hellos[node])
        self._observer.joined(sum(map(bool, self._shares.values())), len(lacking))

    def agree(self, grid: Grid, task: int, outputs: int = 0) -> Names:
        """The class list of a task, agreed now by all nodes that have images of it.

        One node for each list that was announced is asked for it; nodes with another than what
        comes out are sent it, and map their ids by name or are refused by name. From then on it
        stays. ``outputs`` are those of a kept classifier, 0 where there is none.

        Returns:
            The names in the order of their ids; none where no node has names.
        """
        hashes = {node: own[task].class_hash for node, own in self._shares.items() if task in own}
        lists: dict[Names, int] = {}
        for announced, nodes in by_hash(hashes).items():
            names = self._names_of(grid, task, announced, nodes)
            if names:
                lists[names] = len(nodes)
            else:
                for node in nodes:
                    self._leave_out(node, task, "classes", "no list of its class names came")
        if not lists:
            return ()
        names = agreed_outputs(lists, outputs) if outputs else agreed(lists)
        self._lists.fix(task, names)
        own = {
            node: pb.Hello(tasks=[_as_told(task, shares[task])])
            for node, shares in self._shares.items()
            if task in shares
        }
        told = self._explain(grid, own)
        for node in own:
            if node in told:
                self._enter(node, told[node])
            elif not self._lists.fits(own[node].tasks[0]):
                self._leave_out(node, task, "classes", "its class ids are not the task's")
        return names

    def _names_of(self, grid: Grid, task: int, announced: int, nodes: Sequence[int]) -> Names:
        """The list with a hash, from the first of a few nodes that has it; none if none does."""
        for node in nodes[:3]:
            hello = self._greet(grid, [node], wanted=(task,)).get(node, pb.Hello())
            try:
                return names_in(hello, task, announced)
            except RecastError as error:
                self._traffic.refuse(node, self._topic(task), "malformed", str(error))
        return ()

    def _explain(self, grid: Grid, hellos: Mapping[int, pb.Hello]) -> dict[int, pb.Hello]:
        """Greet again, with the task's list, the nodes whose own lists are others."""
        strangers = []
        for node, hello in hellos.items():
            tasks = [d.task for d in hello.tasks if d.class_hash and not self._lists.fits(d)]
            if tasks:
                self._lists.tell(node, tasks)
                strangers.append(node)
        return self._greet(grid, strangers)

    def _enter(self, node: int, hello: pb.Hello) -> None:
        """Take down what a node has, and refuse what it lacks or counts otherwise."""
        known = {task.id for task in self._tasks}
        self._numbers[node] = hello.client
        self._shares[node] = {}
        for data in hello.tasks:
            if data.task not in known:
                continue
            if not self._lists.fits(data):
                self._leave_out(node, data.task, "classes", "its class ids are not the task's")
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
        said, lacks = plain(f"{reason}: {detail}"), self._lacks.setdefault(task, {})
        if lacks.get(node) != said:
            lacks[node] = said
            self._traffic.refuse(node, self._topic(task), reason, detail)

    def _topic(self, task: int) -> Topic:
        return Topic(next((known.name for known in self._tasks if known.id == task), None))

    def _greet(
        self, grid: Grid, nodes: Iterable[int], wanted: Collection[int] = ()
    ) -> dict[int, pb.Hello]:
        """Greet nodes, asking for their own class names of the tasks ``wanted``; their answers."""
        reference = bank_ref(self._start, len(self._content))
        bodies = {
            node: pb.ToClient(
                hello=pb.HelloRequest(
                    bank=reference,
                    tasks=self._lists.tasks_for(node, self._tasks, wanted),
                    method=self._start.method,
                )
            )
            for node in nodes
        }
        limit = _LONGEST_LIST if wanted else 0
        answers = self._ask(grid, bodies, "hello", limit) if bodies else []
        return {answer.node: answer.body.hello for answer in answers}

    def await_nodes(self, grid: Grid, wanted: Collection[str], seconds: float) -> None:
        """Greet who is there until all of ``wanted`` are ready, or some seconds have passed."""
        ends = time.monotonic() + seconds
        while True:
            self.refresh(grid)
            away = len(set(wanted) - {str(node) for node in self._shares})
            left = ends - time.monotonic()
            if not away or left <= 0:
                return
            logger.info("waiting for %d clients that have taken part", away)
            time.sleep(min(LOOK_SECONDS, left))

    def _deliver(self, grid: Grid, nodes: Sequence[int]) -> set[int]:
        if not self._content:
            for node in nodes:
                detail = "its backbone or version gives the method another start"
                self._traffic.refuse(node, Topic(), "wrong-bank", detail)
            return set()
        nodes = [node for node in nodes if self._may_have_it_again(node)]
        if not nodes:
            return set()
        reference = bank_ref(self._start, len(self._content))
        body = pb.ToClient(bank=pb.BankDelivery(bank=reference, content=self._content))
        stored = set()
        for answer in self._ask(grid, dict.fromkeys(nodes, body), "bank"):
            if answer.body.bank.bank == self._start.prefix:
                stored.add(answer.node)
                self._deliveries.stored(answer.node)
            else:
                self._traffic.refuse(
                    answer.node, Topic(), "wrong-bank", "the receipt names another bank"
                )
        return stored

    def _may_have_it_again(self, node: int) -> bool:
        pause = self._deliveries.pause(node)
        if pause:
            detail = f"it has confirmed the bank twice and lacks it again: asked in {pause:.0f} s"
            self._traffic.refuse(node, Topic(), "bank-again", detail)
        return not pause

    def _ask(
        self, grid: Grid, bodies: Mapping[int, pb.ToClient], expected: str, limit: int = 0
    ) -> list[Reply]:
        messages = [self._traffic.send(node, body, Topic(), grid) for node, body in bodies.items()]
        replies = self._collector.ask(
            grid, messages, lambda reply: is_answer(reply, expected, limit), hurry=False
        )
        for node in sorted(self._collector.waiting(MESSAGE_TYPES[expected]) & set(bodies)):
            self._traffic.refuse(node, Topic(), "silent", f"no answer to {expected} in time")
        return list(self._traffic.receive(replies, Topic(), expected, limit))


def _as_told(task: int, share: Share) -> pb.TaskData:
    return pb.TaskData(task=task, classes=share.classes, class_hash=share.class_hash)
