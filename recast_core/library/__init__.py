"""The tasks of a bank: their coefficients and heads, kept, swapped and mixed."""

from recast_core.library.library import TaskLibrary
from recast_core.library.task import Task

__all__ = ["Task", "TaskLibrary"]
