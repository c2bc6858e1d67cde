"""How one client trains in a round, whatever trains and wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


def setting(default: T, text: str, *, bank: bool = False) -> T:
    """A field that is a setting of a run: option, run configuration and help follow from it.

    Args:
        default: also says its type.
        text: what ``--help`` says of it.
        bank: it describes a bank, for commands that make nothing else.
    """
    value: T = field(default=default, metadata={"help": text, "bank": bank})
    return value


@dataclass(frozen=True)
class TrainingSettings:
    """What of a recipe is said in the settings of a run.

    ``recast_core.settings.Settings`` inherits a field of this class, and it travels with every
    broadcast in the field of its name of ``Hyperparameters`` in ``protos/recast_v1.proto``: a new
    one is a line in each of the two files.
    """

    epochs: int = setting(2, "Local passes per round.")
    batch: int = setting(32, "Images per local step.")
    # 1e-2 to 3e-2 suits coefficients of own-weight and of orthonormal templates under AdamW.
    learning_rate: float = setting(1e-2, "Of what trains.")


@dataclass(frozen=True)
class Recipe(TrainingSettings):
    """What the training loops read; carried whole from the settings to the loop.

    Attributes:
        objective: what training lowers, a name of ``recast_core.objectives.OBJECTIVES``. It
            follows from the run's head and labels.
    """

    objective: str = "split-ridge"
