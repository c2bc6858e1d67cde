"""Workers of the folded engine: processes that each fold their share of a round's clients."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from experiments.engines.crew.base import Crew, CrewError, Post
from experiments.engines.folded.models import FoldedOptions
from recast_core.errors import RecastError
from recast_core.settings import Settings


@contextmanager
def crew_for(
    workers: int, ray: str, settings: Settings, options: FoldedOptions, clients: int
) -> Iterator[Crew]:
    """The crew of a run, for as long as it lasts.

    Args:
        workers: how many; 0 for one on each GPU or machine of a Ray cluster.
        ray: the cluster's address; "" for processes of this machine.
        settings: of the run.
        options: of the folded engine.
        clients: how many there are.

    Raises:
        RecastError: the cluster is not there, or cannot do it.
    """
    from experiments.engines.crew.local import LocalCrew
    from experiments.engines.crew.ray import RayCrew

    post = Post(settings, options, clients, torch.get_num_threads(), tuple(sys.path))
    try:
        crew: Crew = RayCrew(workers, ray, post) if ray else LocalCrew(workers, post)
    except CrewError as error:
        raise RecastError(str(error)) from error
    try:
        yield crew
    finally:
        crew.close()
