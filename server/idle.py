"""Settings that a run has and that change nothing in it: each is said once, before it begins."""

from __future__ import annotations

from collections.abc import Iterator

from recast_core.backbones import load_backbone
from recast_core.bank import TemplateBank
from recast_core.heads import head_kind
from recast_core.methods import parse_method
from recast_core.settings import Settings
from recast_core.start import Start
from recast_core.statistics import early_norms
from recast_core.task_spec import parse_tasks
from server.prepare import bank_read

_MAKE_A_BANK = ("groups", "templates", "sets", "basis", "residual", "source")
_OF_NUMBERS = (
    "bits", "broadcast_bits", "rounding", "error_feedback", "transforms", "aggregation", "probe",
    "learning_rate", "decay", "begin", "secure_aggregation", "clip", "dp_epsilon",
)  # fmt: skip
# Widths of floats, which are rounded to nearest whatever is asked.
_FLOATS = (16, 32)
_RULE = Settings.aggregation


def idle_settings(settings: Settings, start: Start) -> list[str]:
    """A line for settings that change nothing, and why, and for a bank that nobody uses as meant.

    Args:
        settings: of the run.
        start: that it was begun with.

    Raises:
        RecastError: the backbone cannot be read any more.
    """
    lines = [
        f"{_options(names)} {'has' if len(names) == 1 else 'have'} no effect: {why}"
        for names, why in _found(settings, start)
        if names
    ]
    hidden = settings.secure_aggregation
    if (hidden or settings.dp_epsilon) and start.sent and settings.aggregation == _RULE:
        why = "updates are hidden" if hidden else "there is a privacy budget"
        lines.append(f"the mean of updates is taken, not --aggregation {_RULE}: {why}")
    shifts = isinstance(start, TemplateBank) and start.meta.get("source") == "shifts"
    if shifts and settings.head == "auto" and not settings.keeps:
        lines.append(
            "the bank is one of shifts, and each client fits a head of its own: --head backbone "
            "keeps the deployed classifier, where tasks have its classes"
        )
    return lines


def _found(settings: Settings, start: Start) -> Iterator[tuple[list[str], str]]:
    yield from _of_method(settings, start)
    kind, tasks = settings.head_kind, len(parse_tasks(settings.tasks))
    if not settings.keeps:
        yield _said(settings, "begin"), "no task keeps a classifier, as with --head backbone"
    if settings.statistics == "recompute":
        plain = not early_norms(load_backbone(settings.backbone).model)
        yield ["statistics"] if plain else [], f"{settings.backbone} has no BatchNorm"
    if not head_kind(kind).travels:
        yield _said(settings, "baseline"), f"a {kind} head does not travel"
    if settings.evaluate_every >= settings.rounds:
        yield ["evaluate_every"], "a task is evaluated after its last round anyway"
    if settings.parallel_tasks > tasks and not settings.keep_running:
        yield ["parallel_tasks"], f"of the run's tasks there are {tasks}"
    if not settings.clients_per_round:
        yield _said(settings, "dp_sampling"), "without --clients-per-round everybody is drawn"


def _of_method(settings: Settings, start: Start) -> Iterator[tuple[list[str], str]]:
    method = settings.canonical_method()
    if method != "recast":
        # A method that has a target names it in what it is called.
        untargeted = method == parse_method(settings.method, "another").canonical
        also = ("target",) if untargeted else ()
        yield _said(settings, *also, *_MAKE_A_BANK), f"method {method} has no bank"
    elif bank_read(settings) is not None:
        yield _said(settings, "target", *_MAKE_A_BANK), "the bank is read and not made"
    if not start.sent:
        yield _said(settings, *_OF_NUMBERS), f"method {method} sends no numbers"
    elif settings.secure_aggregation:
        yield _said(settings, "rounding"), "hidden updates are counted in steps of their own"
    elif (bits := settings.width(start.sent)) in _FLOATS:
        # What 16 bits leave out is still told by the next update.
        also = ("error_feedback",) if bits == max(_FLOATS) else ()
        yield _said(settings, "rounding", *also), f"numbers of {bits} bits are not rounded to steps"


def _said(settings: Settings, *names: str) -> list[str]:
    return [name for name in names if getattr(settings, name) != getattr(Settings, name)]


def _options(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
