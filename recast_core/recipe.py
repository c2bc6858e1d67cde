"""How one client trains in a round, whatever trains and wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What the training loops read; carried whole from the settings to the loop.

    Attributes:
        epochs: passes over the client's images.
        batch: images per step.
        learning_rate: of what trains. 1e-2 to 3e-2 suits the coefficients of own-weight and of
            orthonormal templates under AdamW.
        objective: what training lowers, a name of ``recast_core.objectives.OBJECTIVES``.
    """

    epochs: int = 2
    batch: int = 32
    learning_rate: float = 1e-2
    objective: str = "split-ridge"
