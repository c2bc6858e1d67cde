"""RECAST: pretrained weights as combinations of shared templates; a task is a few coefficients.

The method of Tasnim and Plummer (ICLR 2025, arXiv 2411.16870) in plain PyTorch::

    bank = mimic(model, RecastConfig(target="mlp", groups=6))
    net = attach(model, bank)
    net.print_trainable_parameters()
"""

from recast_core.bank import TemplateBank, TemplateGroup
from recast_core.config import RecastConfig
from recast_core.errors import RecastError
from recast_core.mimicry import mimic
from recast_core.model import RecastModel, attach

__all__ = [
    "RecastConfig",
    "RecastError",
    "RecastModel",
    "TemplateBank",
    "TemplateGroup",
    "attach",
    "mimic",
]
