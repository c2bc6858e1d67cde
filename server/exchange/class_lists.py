"""Each task's class list on the server, and which node is told what of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from protos import recast_v1_pb2 as pb
from recast_core.classes import Names, check_names, list_hash
from recast_core.errors import RecastError

MOST_NAMES = 4096
# In bytes; each client whose own list is another is sent all names, on its own link.
MOST_TEXT = 1 << 17


class ClassLists:
    """The lists that are agreed, by the task's number.

    A node whose own list has the agreed one's hash is told the hash alone; any other is told the
    list, and from then on in every greeting, since it remembers what it was greeted with last.
    """

    def __init__(self) -> None:
        self._lists: dict[int, Names] = {}
        self._told: dict[int, set[int]] = {}

    def __contains__(self, task: int) -> bool:
        return task in self._lists

    def fix(self, task: int, names: Names) -> None:
        """Take ``names`` for the list of a task, for good."""
        self._lists[task] = names

    def fits(self, data: pb.TaskData) -> bool:
        """Whether a node's ids are the task's, as far as can be told yet.

        A client of before there were names has no hash; its ids are taken as they stand, where it
        counts as many classes.
        """
        names = self._lists.get(data.task)
        if names is None:
            return True
        if not data.class_hash:
            return bool(data.classes == len(names))
        return bool(data.class_hash == list_hash(names))

    def tell(self, node: int, tasks: Iterable[int]) -> None:
        """Have the lists of these tasks sent to a node."""
        self._told.setdefault(node, set()).update(tasks)

    def tasks_for(
        self, node: int, tasks: Sequence[pb.Task], wanted: Collection[int] = ()
    ) -> list[pb.Task]:
        """The tasks as a node is greeted with them; of those ``wanted`` its own names are asked."""
        found = []
        for task in tasks:
            names = self._lists.get(task.id, ())
            found.append(
                pb.Task(
                    id=task.id,
                    name=task.name,
                    source=task.source,
                    class_hash=list_hash(names),
                    classes=names if task.id in self._told.get(node, ()) else (),
                    wants_classes=task.id in wanted,
                    keeps_head=task.keeps_head,
                )
            )
        return found


def names_in(hello: pb.Hello, task: int, announced: int) -> Names:
    """The list that a node's ids of a task count in, as its answer has it.

    Raises:
        RecastError: it is not there, not the one that was announced, or no list of names.
    """
    for data in hello.tasks:
        if data.task == task:
            names = check_names(data.class_names)
            if list_hash(names) != announced:
                raise RecastError("a list of classes that is not the one that it had announced")
            return names
    raise RecastError("no list of classes, which it was asked for")


def within_reason(lists: Mapping[Names, int]) -> tuple[dict[Names, int], list[Names]]:
    """The lists that a task's is made of, and those that would make it larger than it may be.

    A list that half of the nodes have may be of any length; all others together are of
    ``MOST_NAMES`` names and ``MOST_TEXT`` bytes, so that nobody makes everybody fit a head of
    classes that nobody has, or fetch a book. What more nodes have comes first, then what is
    shorter.

    Args:
        lists: how many nodes have each.
    """
    ranked = sorted(lists, key=lambda names: (-lists[names], len(names), names))
    most, text, kept, left = MOST_NAMES, MOST_TEXT, dict[Names, int](), list[Names]()
    if ranked and 2 * lists[ranked[0]] >= sum(lists.values()):
        most += len(ranked[0])
        text += _bytes(set(ranked[0]))
    union: set[str] = set()
    for names in ranked:
        new = set(names) - union
        if len(union) + len(new) > most or _bytes(new) > text:
            left.append(names)
        else:
            kept[names] = lists[names]
            union |= new
            text -= _bytes(new)
    return kept, left


def _bytes(names: set[str]) -> int:
    return sum(len(name.encode("utf-8", "surrogatepass")) for name in names)


def by_hash(hashes: Mapping[int, int]) -> dict[int, list[int]]:
    """The nodes of each hash, both ascending; nodes without names are left out."""
    found: dict[int, list[int]] = {}
    for node, announced in sorted(hashes.items(), key=lambda item: (item[1], item[0])):
        if announced:
            found.setdefault(announced, []).append(node)
    return found
