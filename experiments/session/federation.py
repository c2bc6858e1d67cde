"""``recast.Federation``: the settings of a run, and the two ways to run it from Python."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from client.data import parse_task, parse_tasks
from experiments.engines.fleet import Fleet
from experiments.logs.callback import Callback, Calls, RoundFinished, TaskFinished
from experiments.logs.table import open_logs
from experiments.session.given import named
from experiments.session.run import Run
from experiments.session.simulation import Finished, Population, simulate
from experiments.session.view import shown
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.plugins import load_plugins
from recast_core.settings import Settings
from server.app import run_folder
from server.prepare import bank_path

_FLEET = tuple(field.name for field in fields(Fleet))
# Of ``Federation.simulate``.
OPTIONS = (*_FLEET, "bf16", "compiled", "workers", "ray")
# What belongs to the other call: to ``Federation()``, or to its ``simulate()`` and ``serve()``.
_TOLD = ("callbacks", "on_round", "on_task", "log")
_CALLS = ("clients", "engine", "progress", "listen", "certs", "insecure", "grace")
Tasks = str | Sequence[str] | Mapping[str, str]


class Federation:
    """A federation that is yet to run.

    Its settings are those of ``recast simulate``, by the names that its options have, with
    underscores. Four of them also take an object in place of a name, and ``bank`` a bank.
    """

    def __init__(
        self,
        tasks: Tasks | None = None,
        *,
        callbacks: Iterable[Callback] = (),
        on_round: Callable[[RoundFinished], object] | None = None,
        on_task: Callable[[TaskFinished], object] | None = None,
        log: str | Sequence[str] = (),
        **settings: Any,
    ) -> None:
        """Check everything that can be checked before a client is there.

        Args:
            tasks: DATA specifications: one text, a list, or a mapping from names.
            callbacks: are told of the run, each round and each task.
            on_round: is called after each round.
            on_task: is called after each task's evaluation.
            log: ``KIND:WHERE``, one or several, as ``--log`` takes them.
            settings: see ``recast simulate --help``.

        Raises:
            RecastError: an unknown setting, or one that does not fit; offers a near name.
        """
        load_plugins()
        if tasks is not None:
            settings["tasks"] = _tasks(tasks)
        bank = settings.pop("bank", "")
        self._bank = bank if isinstance(bank, TemplateBank) else None
        if self._bank is None and bank:
            settings["bank"] = str(bank)
        values, self._travelling = named(settings)
        _refuse_unknown(values, [field.name for field in fields(Settings)])
        plain = {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}
        self.settings = Settings.from_mapping(plain)
        self._callbacks = _told(callbacks)
        if on_round is not None or on_task is not None:
            self._callbacks += (Calls(on_round, on_task),)
        self._logs = (log,) if isinstance(log, str) else tuple(log)

    def simulate(
        self, clients: int = 20, engine: str = "folded", *, progress: bool | None = None,
        **options: Any,
    ) -> Run:  # fmt: skip
        """Run it with simulated clients in this process.

        Args:
            clients: how many.
            engine: ``folded``, ``sequential`` or ``ray``.
            progress: show how far it is; where ``None``, on a terminal and in a notebook.
            options: ``bf16``, ``compiled``, ``workers``, ``ray``, and what befalls the clients:
                ``availability``, ``drop_out``, ``stragglers``, ``round_limit``, ``radio``.

        Raises:
            RecastError: settings that cannot run. Finished rounds stay in the registry.
        """
        _refuse_unknown(options, OPTIONS)
        fleet = {name: options.pop(name) for name in _FLEET if name in options}
        people = Population(clients, engine, Fleet(**fleet) if fleet else None, **options)
        people.check()
        if (engine == "ray" or people.several) and self._travelling:
            who = "Ray's workers" if engine == "ray" or people.ray else "other processes"
            raise RecastError(
                f"{self._travelling[0]} is an object, which {who} lack: put it into a "
                "plug-in (RECAST_PLUGINS), or use engine folded without workers"
            )
        settings, callbacks = self._ready()
        with shown(len(parse_tasks(settings.tasks)), progress) as view:
            return _run_of(simulate(settings, people, view, callbacks))

    def serve(
        self,
        listen: str = "127.0.0.1:9441",
        clients: int = 2,
        *,
        certs: Path | str = "certs",
        insecure: bool = False,
        grace: float = 120.0,
    ) -> Run:
        """Run it with clients that ``recast join``, until its tasks are learned.

        Args:
            listen: ``HOST:PORT``.
            clients: to wait for.
            certs: folder of the certificates that ``recast certs init`` made.
            insecure: no TLS, on this machine alone.
            grace: seconds that a round waits for a client that is away.

        Raises:
            RecastError: settings that cannot run. Finished rounds stay in the registry.
        """
        from experiments.command.serve import LinkOptions, run_server

        options = LinkOptions(
            listen=listen,
            clients=clients,
            certs=Path(certs),
            insecure=insecure,
            force_insecure=False,
            grace=grace,
            keepalive=240.0,
            json_log=False,
        )
        settings, callbacks = self._ready()
        return _run_of(run_server(settings, options, callbacks))

    def _ready(self) -> tuple[Settings, list[Callback]]:
        """The settings of a run with a folder of its own, and who is told of it."""
        callbacks = [*self._callbacks, *open_logs(self._logs)]
        if self._bank is None:
            return self.settings, callbacks
        folder = run_folder(self.settings)
        path = bank_path(folder, self._bank.sha256)
        if not path.exists():
            self._bank.save(path)
        return replace(self.settings, run_dir=str(folder), bank=str(path)), callbacks

    def __repr__(self) -> str:
        usual = Settings()
        changed = {
            field.name: getattr(self.settings, field.name)
            for field in fields(Settings)
            if getattr(self.settings, field.name) != getattr(usual, field.name)
        }
        return f"Federation({', '.join(f'{key}={value!r}' for key, value in changed.items())})"


def split(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords that are settings of a federation, and those that are options of ``simulate``.

    Raises:
        RecastError: one that is neither; offers a near name.
    """
    _refuse_unknown(keywords, [*OPTIONS, *(field.name for field in fields(Settings))])
    settings = {key: value for key, value in keywords.items() if key not in OPTIONS}
    return settings, {key: value for key, value in keywords.items() if key in OPTIONS}


def _refuse_unknown(keywords: Iterable[str], known: Sequence[str]) -> None:
    for key in keywords:
        if key.replace("-", "_") not in known:
            if key in (*OPTIONS, *_CALLS):
                raise RecastError(f"{key!r} is for its simulate() or serve(): give it there")
            if key in (*_TOLD, *(field.name for field in fields(Settings))):
                raise RecastError(f"{key!r} is for the federation: give it to Federation()")
            near = difflib.get_close_matches(key, known, n=1)
            hint = f", did you mean {near[0]}?" if near else "; `recast simulate --help` lists them"
            raise RecastError(f"unknown setting {key!r}{hint}")


def _told(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Those that can be told.

    Raises:
        RecastError: one that is no callback; says how to make it one.
    """
    given = (callbacks,) if isinstance(callbacks, Callback) else tuple(callbacks)
    for each in given:
        if not isinstance(each, Callback):
            made = isinstance(each, type) and issubclass(each, Callback)
            kind = each.__name__ if isinstance(each, type) else type(each).__name__
            raise RecastError(
                f"{kind} is a class: give {kind}() among callbacks"
                if made
                else f"{kind} is no callback: give an object of a class that inherits "
                "recast.Callback, or a function as on_round= or on_task="
            )
    return given


def _tasks(tasks: Tasks) -> str:
    """As the setting ``tasks`` has them."""
    if isinstance(tasks, str):
        return tasks
    if isinstance(tasks, Mapping):
        tasks = [f"{name}={data}" for name, data in tasks.items()]
    return " ".join(str(parse_task(one)) for one in tasks)


def _run_of(done: Finished) -> Run:
    return Run(done.result.folder, done.result.run, done.report)
