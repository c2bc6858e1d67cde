"""Where a bank's templates come from: one source a file.

``task_vectors`` is not in the table: it needs other networks besides the backbone.
"""

from collections.abc import Callable, Mapping

from recast_core.config import RecastConfig
from recast_core.sources.base import Source
from recast_core.sources.closed_form import ClosedForm
from recast_core.sources.gradient import Gradient
from recast_core.sources.seeded import Seeded
from recast_core.sources.vae import Vae

SOURCES: Mapping[str, Callable[[RecastConfig], Source]] = {
    "closed-form": lambda config: ClosedForm(config.basis, config.residual),
    "gradient": lambda config: Gradient(sets=config.sets),
    "vae": lambda config: Vae(),
    "seeded": lambda config: Seeded(),
}

__all__ = ["SOURCES", "ClosedForm", "Gradient", "Seeded", "Source", "Vae"]
