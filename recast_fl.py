"""The door of the `recast` command: nothing on the path may stand in for one of its packages.

It is also the other name of the public module ``recast``, for where another package is called so::

    import recast_fl as recast
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NoReturn

PACKAGES = ("protos", "recast_core", "client", "server", "experiments")
_HOME = Path(__file__).resolve().parent
_REFUSED = 2


def hidden(first: Path | None = None) -> str | None:
    """What stands in for one of our packages and how to mend it, in one line; ``None`` if nothing.

    Python takes the first module of a name on its path: a ``client.py`` in the current folder
    hides the package ``client`` from a program that is started with ``python -m`` there.

    Args:
        first: a folder that comes before the path, as further processes will see it.
    """
    for name in PACKAGES:
        ahead = PathFinder.find_spec(name, [str(first)]) if first else None
        # A folder without __init__.py gives way to any package of its name.
        spec = ahead if ahead and ahead.origin else find_spec(name)
        if spec is None:
            return f"the package {name} is not installed beside {__file__}: install recast-fl again"
        if (where := _where(spec)).parent != _HOME:
            return (
                f"{where} hides recast's package {name}: rename it, or take {where.parent} off "
                "Python's path (PYTHONPATH, or start `recast` instead of `python -m`)"
            )
    return None


def stranger() -> str | None:
    """What else ``import recast`` gives, and what to do, in one line; ``None`` if it is ours."""
    spec = find_spec("recast")
    if spec is None or (where := _where(spec)) == _HOME / "recast.py":
        return None
    return (
        f"`import recast` gives {where}, another package: write `import recast_fl as recast`, or "
        "take that one away"
    )


def _where(spec: ModuleSpec) -> Path:
    """The file of a module, or the folder of a package."""
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin or spec.name).resolve()


def main() -> NoReturn:
    """Run the command, or say in one line why another module is in its way, with exit code 2."""
    if (message := hidden()) is not None:
        print(f"recast: {message}", file=sys.stderr)
        sys.exit(_REFUSED)
    if (message := stranger()) is not None:
        print(f"recast: note: {message}", file=sys.stderr)
    from experiments.command.cli import main as command
    from experiments.command.interrupt import ends_with

    try:
        command()
    except SystemExit as end:
        ends_with(end.code)
        raise


@cache
def _face() -> ModuleType:
    """The public module, also where another package has its name."""
    if stranger() is None:
        return import_module("recast")
    spec = spec_from_file_location("recast_fl_face", _HOME / "recast.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def __getattr__(name: str) -> object:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_face(), name)
