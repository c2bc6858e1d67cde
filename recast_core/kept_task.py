"""The setting ``head`` where it names an earlier task, whose head later tasks keep."""

from __future__ import annotations

from dataclasses import dataclass

from recast_core.errors import RecastError
from recast_core.task_spec import check_task_name

GRAMMAR = "task:NAME[:KIND] or task:NAME@PATH"
_PREFIX = "task:"


@dataclass(frozen=True)
class KeptTask:
    """Whose head is kept.

    Attributes:
        name: of the earlier task.
        kind: of that task's own head, where it is one of the same run; empty for the customary.
        path: the folder of another run, or of a library, that has the task; empty for this run.
    """

    name: str
    kind: str = ""
    path: str = ""

    @property
    def setting(self) -> str:
        """What ``parse_kept`` reads back."""
        tail = f"@{self.path}" if self.path else f":{self.kind}" if self.kind else ""
        return f"{_PREFIX}{self.name}{tail}"


def parse_kept(text: str) -> KeptTask | None:
    """Read ``task:NAME``, ``task:NAME:KIND`` or ``task:NAME@PATH``; ``None`` for any other head.

    Raises:
        RecastError: no task's name, or an empty kind or path.
    """
    if not text.startswith(_PREFIX):
        return None
    name, at, path = text[len(_PREFIX) :].partition("@")
    name, colon, kind = name.partition(":")
    if (at and (not path or colon)) or (colon and not kind):
        raise RecastError(f"cannot read head {text!r}: write {GRAMMAR}")
    return KeptTask(check_task_name(name), kind, path)
