"""Parts that Python hands over as objects: made known by a name, which the settings then have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from recast_core.errors import RecastError
from recast_core.heads.table import forget_head, register_head
from recast_core.methods import METHODS, Method, register_method
from recast_core.sources import SOURCES, Source, register_source
from server.rounds.aggregation import forget_aggregation, register_aggregation

Part = TypeVar("Part")

# What was made known here, by the setting and the name: a notebook defines things again and again.
_given: dict[tuple[str, str], object] = {}


def named(settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Settings with names where there were objects, which this process knows from now on.

    Args:
        settings: names to values; those of ``aggregation``, ``method``, ``head`` and ``source`` may
            be objects.

    Returns:
        The settings, and which of them need the object on every client too.

    Raises:
        RecastError: an object of another kind, or with the name of a part of recast.
    """
    found, travelling = dict(settings), []
    for name, take in _TAKERS.items():
        thing = found.get(name)
        if thing is None or isinstance(thing, str):
            continue
        found[name] = take(thing)
        if name != "aggregation":
            travelling.append(name)
    return found, travelling


def _aggregation(rule: object) -> str:
    if not callable(rule):
        raise _wrong("aggregation", rule, "a function of start and contributions")
    name = _name(getattr(rule, "__name__", type(rule).__name__))
    return _known("aggregation", name, rule, register_aggregation, forget_aggregation)


def _method(method: object) -> str:
    if isinstance(method, Method):
        kind, spec = type(method), method.canonical
    elif isinstance(method, type) and issubclass(method, Method):
        kind, spec = method, method.name
    else:
        raise _wrong("method", method, "a recast_core.methods.Method")
    if METHODS.get(kind.name) is not kind:
        _known("method", kind.name, kind, register_method, METHODS.__delitem__)
    return spec


def _head(head: object) -> str:
    made: Any = head() if isinstance(head, type) else head
    if not all(hasattr(made, name) for name in ("name", "code", "travels", "fit")):
        raise _wrong("head", head, "a recast_core.heads.StayingHead or TravellingHead")
    make = head if isinstance(head, type) else (lambda: made)
    return _known("head", made.name, head, lambda _name, _head: register_head(make), forget_head)


def _source(source: object) -> str:
    if not isinstance(source, type) or not issubclass(source, Source):
        raise _wrong("source", source, "a class that inherits recast_core.sources.Source")
    known = next((name for name, kind in SOURCES.items() if kind is source), None)
    if known is not None:
        return known
    name = _name(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", source.__name__))
    return _known("source", name, source, register_source, SOURCES.__delitem__)


_TAKERS: Mapping[str, Callable[[object], str]] = {
    "aggregation": _aggregation,
    "method": _method,
    "head": _head,
    "source": _source,
}


def _known(
    setting: str,
    name: str,
    thing: Part,
    register: Callable[[str, Part], object],
    forget: Callable[[str], object],
) -> str:
    """Make ``thing`` known by ``name``, in the place of one that was given here before."""
    before = _given.get((setting, name))
    if before is thing:
        return name
    if before is not None:
        forget(name)
    register(name, thing)
    _given[setting, name] = thing
    return name


def _name(text: str) -> str:
    """A name that settings can have."""
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-") or "given"


def _wrong(setting: str, thing: object, wanted: str) -> RecastError:
    return RecastError(
        f"{setting} is a {type(thing).__name__}: give a name as the command takes it, or {wanted}"
    )
