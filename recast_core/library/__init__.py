"""The tasks of a bank: their coefficients and heads, kept, swapped and mixed."""

from recast_core.library.library import TaskLibrary
from recast_core.library.pretrained import About
from recast_core.library.task import SavedTask

__all__ = ["About", "SavedTask", "TaskLibrary"]
