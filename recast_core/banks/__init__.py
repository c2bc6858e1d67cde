"""Banks that the package carries, by the name of the deployed network that they are of.

``digits_resnet20`` was made by ``recast bank digits_resnet20 --data "digits[:50%]" --holdout
noise,blur,weather --rank 8``: it has seen light, coding and geometry change, and no noise, blur or
weather.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from recast_core.bank import TemplateBank

PACKAGED = ("digits_resnet20",)


def load_bank(text: str) -> TemplateBank:
    """The packaged bank of this name, or the one in the file at this path.

    Raises:
        RecastError: unreadable, corrupt, or no bank.
    """
    if text not in PACKAGED:
        return TemplateBank.load(Path(text))
    with resources.as_file(resources.files(__name__) / f"{text}.safetensors") as path:
        return TemplateBank.load(path)
