"""The ClientApp as a function from a message's bytes to those of its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flwr.app import Context, RecordDict

from client.link.application import LocalApp
from client.link.flower import incoming
from protos.content import from_content
from protos.flower import RUN_ID
from recast_core.errors import RecastError
from recast_core.setting_values import Value

Answer = Callable[[str, bytes], bytes]


def application(local: LocalApp, settings: Mapping[str, Value]) -> Answer:
    """The app with its folders and the run's settings; it keeps its state between calls."""
    state = RecordDict()
    numbers = iter(range(1, 1 << 62))

    def answer(type_: str, body: bytes) -> bytes:
        config = dict(local.node_config)
        context = Context(RUN_ID, 0, config, state, dict(settings) | dict(local.overrides))
        found = from_content(local.app(incoming(next(numbers), type_, body), context))
        if found is None:
            raise RecastError("the application gave no answer of ours: use its own version")
        return found

    return answer
