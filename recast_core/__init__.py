"""RECAST: pretrained weights as combinations of shared templates; a task is a few coefficients.

The method of Tasnim and Plummer (ICLR 2025, arXiv 2411.16870) in plain PyTorch:

    bank = mimic(model, RecastConfig(target="mlp", groups=6))
    net = attach(model, bank)
    net.print_trainable_parameters()
    found = fit(net, images, labels, classes=10)
    tasks = TaskLibrary(bank)
    tasks.add("flowers", found.coefficients, found.head)
    tasks.activate(net, "flowers")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recast_core.bank import TemplateBank, TemplateGroup
    from recast_core.config import RecastConfig
    from recast_core.errors import RecastError
    from recast_core.fitting import fit
    from recast_core.library import TaskLibrary
    from recast_core.mimicry import mimic
    from recast_core.model import RecastModel, attach

# Names are looked up when they are first used, so that the command line need not wait for torch.
_HOME = {
    "RecastConfig": "config",
    "RecastError": "errors",
    "RecastModel": "model",
    "TaskLibrary": "library",
    "TemplateBank": "bank",
    "TemplateGroup": "bank",
    "attach": "model",
    "fit": "fitting",
    "mimic": "mimicry",
}

__all__ = [
    "RecastConfig",
    "RecastError",
    "RecastModel",
    "TaskLibrary",
    "TemplateBank",
    "TemplateGroup",
    "attach",
    "fit",
    "mimic",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
