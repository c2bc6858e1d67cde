"""``recast simulate``: a simulation with a progress bar and a closing table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from client.data import parse_tasks
from experiments.command.console import print_closing
from experiments.command.progress import ProgressObserver
from experiments.logs.callback import Callback
from experiments.session.simulation import Population
from experiments.session.simulation import simulate as run
from recast_core.settings import Settings


def simulate(
    settings: Settings, people: Population, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Run the federation, print its closing table and return its report.

    Args:
        settings: of the run.
        people: who takes part.
        callbacks: are told of rounds and tasks.

    Raises:
        RecastError: settings that cannot run. Finished rounds stay in the registry.
    """
    people.check()
    with ProgressObserver(len(parse_tasks(settings.tasks))) as view:
        done = run(settings, people, view, callbacks)
    print_closing(done.report, done.result, settings.backbone)
    return done.report
