"""Banks that the package carries, by the name of the deployed network that they are of.

``digits_resnet20`` was made by ``recast bank digits_resnet20 --data "digits[:50%]" --holdout
noise,blur,weather --rank 8 --sources 144`` on one thread of a processor: it has seen light, coding
and geometry change, and no noise, blur or weather.
"""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from recast_core.bank import TemplateBank
from recast_core.errors import RecastError

PACKAGED = ("digits_resnet20",)


def load_bank(text: str) -> TemplateBank:
    """The packaged bank of this name, or the one in the file at this path.

    Raises:
        RecastError: unreadable, corrupt, or no bank; an unknown name is told the packaged ones.
    """
    if text not in PACKAGED:
        path = Path(text).expanduser()
        if not path.exists():
            near = difflib.get_close_matches(path.stem, PACKAGED, n=1, cutoff=0.4)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise RecastError(
                f"cannot read the bank {text!r}, which is not there{hint}: give a file that "
                f"`recast bank` made, or a packaged one ({', '.join(PACKAGED)})"
            )
        return TemplateBank.load(path)
    with resources.as_file(resources.files(__name__) / f"{text}.safetensors") as path:
        return TemplateBank.load(path)
