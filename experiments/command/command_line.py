"""A command of `recast`: options from a file and the environment too, and help in groups.

What is said on the command line comes before the environment (``RECAST_ROUNDS``), that before the
file of ``--config``, and that before the defaults. No heavy imports here.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from experiments.command.config_file import DEFAULTS, as_toml, read_config
from experiments.command.opening import opening
from recast_core.errors import RecastError
from recast_core.setting_fields import Adaptation, Images, Learning, Privacy, Running, Updates

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
PREFIX = "RECAST_"
_OWN, _FILES = "This command", "In and out"
_GROUPS = {
    "What is adapted": Adaptation,
    "What is learned, and how": Learning,
    "Updates": Updates,
    "Privacy": Privacy,
    "Images": Images,
    "The run": Running,
}
_NAMES = {title: {field.name for field in fields(kind)} for title, kind in _GROUPS.items()}
_ARGUMENTS = {
    "backbone": "The network: digits_resnet20, glyph_resnet20, a torchvision NAME:WEIGHTS, "
    "file:PATH, hf:NAME, timm:NAME or module:FACTORY.",
    "folder": "The folder that holds runs.  [default: runs]",
    "images": "Files of images.",
    "name": "The client's name.",
    "run": "A run's folder.",
    "server": "HOST:PORT of the server; none with --mqtt.",
    "spec": "[NAME=]DATA, as `recast simulate --tasks` takes it.",
    "task": "A task of the run, by name.",
}
_NEVER_FROM_A_FILE = ("config", "print_config", "json_path", "help")
_IN_AND_OUT = (*_NEVER_FROM_A_FILE, "json_log")


class RecastCommand(click.Command):
    """Says at once that it begins, and shows its options in groups.

    Attributes:
        slow: it takes long, so that it also says so where nobody sits before a terminal.
        of_environment: its options may come from ``RECAST_NAME``.
    """

    slow = False
    of_environment = False

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:  # fmt: skip
        """See click; the environment's names are given to options here."""
        if self.of_environment:
            for parameter in self.params:
                if isinstance(parameter, click.Option) and parameter.name not in _NO_VARIABLE:
                    parameter.envvar = variable(parameter)
            self._warn_of_near_names()
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.BadParameter as error:
            option, context = error.param, error.ctx
            if isinstance(option, click.Option) and context and _of_environment(option, context):
                error.param_hint = f"'{variable(option)}' ({option.get_error_hint(context)})"
            raise

    def _warn_of_near_names(self) -> None:
        """Say so where the environment has what is almost an option: it would count for nothing."""
        known = {written(each).replace("-", "_").upper() for each in self.params}
        for name in sorted(os.environ):
            said = name.removeprefix(PREFIX)
            if said == name or said in known | _OTHER_VARIABLES:
                continue
            if near := difflib.get_close_matches(said, known, n=1, cutoff=0.85):
                click.echo(
                    f"recast: warning: {name} in the environment is no option: did you mean "
                    f"{PREFIX}{near[0]}?",
                    err=True,
                )

    def invoke(self, context: click.Context) -> Any:
        """Run the command, or print what it would be run with."""
        asked = context.params.pop("print_config", False)
        context.params.pop("config", None)
        if asked:
            click.echo(as_toml(str(self.name), said(context)), nl=False)
            return 0
        opening(
            f"{context.command_path}: starting, which takes some seconds",
            context.params.get("json_path"),
            slow=self.slow,
        )
        try:
            return super().invoke(context)
        except RecastError as error:
            if found := _behind(str(error), context):
                raise RecastError(f"{error} (set in the environment: {found})") from error
            raise

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those that belong together under one heading."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in (_OWN, *_GROUPS, _FILES)}
        for parameter in self.get_params(context):
            record = _help_record(parameter, context)
            if record is not None:
                groups[_group_of(parameter)].append(record)
        if not any(groups[name] for name in _GROUPS):
            groups = {"Options": [*groups[_OWN], *groups[_FILES]]}
        for name, records in groups.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)
        if self.of_environment:
            with formatter.section("Environment"):
                from_file = any(parameter.name == "config" for parameter in self.params)
                formatter.write_text(
                    "RECAST_OPTION gives an option, as RECAST_ROUNDS=3 does. The command line "
                    "comes first, then the environment, "
                    f"{'the file of --config, and' if from_file else 'then'} the default."
                )


def _help_record(parameter: click.Parameter, context: click.Context) -> tuple[str, str] | None:
    """What is left and right of an option; an argument has a row too, whatever click's version."""
    if not isinstance(parameter, click.Argument):
        return parameter.get_help_record(context)
    return " ".join(parameter.get_usage_pieces(context)), _ARGUMENTS[str(parameter.name)]


class SlowCommand(RecastCommand):
    """Takes minutes or days."""

    slow = True


class FederationCommand(SlowCommand):
    """Its options may come from the environment too."""

    of_environment = True


# RECAST_DATA is where data sets are downloaded to, in every process.
_OTHER_VARIABLES = {"DATA", "PLUGINS", "MQTT_PASSWORD", "WEB_TOKEN"}
_NO_VARIABLE = {"help", "print_config", "data"}


def configured(command: Decorated) -> Decorated:
    """Add --config and --print-config."""
    for option in (
        click.option(
            "--print-config", is_flag=True, expose_value=True,
            help="Print every option as it is, as a file for --config, and end.",
        ),
        click.option(
            "--config", type=click.Path(), is_eager=True, callback=_load, metavar="FILE.toml",
            help="Take options from this file; one file serves simulate, serve and measure.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def variable(parameter: click.Parameter) -> str:
    """The environment's name of an option."""
    return PREFIX + written(parameter).replace("-", "_").upper()


def _of_environment(parameter: click.Parameter, context: click.Context) -> bool:
    return context.get_parameter_source(str(parameter.name)) is ParameterSource.ENVIRONMENT


def _behind(complaint: str, context: click.Context) -> str:
    """The variables that gave options which a complaint names, or whose values it quotes."""
    names = []
    for option in context.command.params:
        if not _of_environment(option, context):
            continue
        value = str(context.params.get(str(option.name)))
        words = re.escape(written(option)).replace(r"\-", "[-_ ]")
        if re.search(rf"(?<!\w){words}(?!\w)", complaint) or repr(value) in complaint:
            names.append(variable(option))
    return ", ".join(names)


def written(parameter: click.Parameter) -> str:
    """The option as it is written on the command line and in a file, without its dashes."""
    longest = max((name for name in parameter.opts), key=len)
    return longest.lstrip("-")


def said(context: click.Context) -> list[tuple[str, Any, str, bool]]:
    """Every option of a command: how it is written, its value, who said so, whether a setting."""
    found = []
    for parameter in context.command.params:
        name = str(parameter.name)
        if (
            not isinstance(parameter, click.Option)
            or parameter.hidden
            or name in (*_NEVER_FROM_A_FILE, "web_token")
        ):
            continue
        value = context.params.get(name)
        is_setting = name.replace("_", "-") in DEFAULTS
        source = context.get_parameter_source(name)
        if value is None and is_setting:
            value = DEFAULTS[name.replace("_", "-")]
        found.append((written(parameter), value, _SOURCES.get(source, "default"), is_setting))
    return found


_SOURCES: Mapping[ParameterSource | None, str] = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "file",
}


def _load(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    """Make the file's values the command's defaults, before its other options are read."""
    if path is not None:
        options = {
            str(one.name): one
            for one in context.command.params
            if isinstance(one, click.Option) and one.name not in _NEVER_FROM_A_FILE
        }
        names = {written(one): name for name, one in options.items()}
        found = read_config(path, str(context.command.name), names)
        for name, value in found.items():
            _check_type(context, options[name], value, path)
        context.default_map = found
    return path


def _check_type(context: click.Context, option: click.Option, value: Any, path: str) -> None:
    """Refuse a value in a file that is not of an option's type, where click would make it so.

    Raises:
        RecastError: it is not; the file and the key.
    """
    wanted: tuple[str, tuple[type, ...]] = "a text", (str,)
    for kind, words, of in _TYPES:
        if isinstance(option.type, kind):
            wanted = words, (*of, str)
    if option.multiple:
        wanted = "a list of texts", (str, list)
    # To Python true is a number.
    fits = isinstance(value, wanted[1]) and isinstance(value, bool) <= (bool in wanted[1])
    why = f"give {wanted[0]}"
    if fits and not option.multiple:
        try:
            option.type_cast_value(context, value)
        except click.BadParameter as error:
            fits, why = False, why if isinstance(value, str) else error.message
    if not fits:
        raise RecastError(f"{path}: {written(option)} is {value!r}: {why}")


_TYPES: Sequence[tuple[type, str, tuple[type, ...]]] = (
    (click.types.BoolParamType, "true or false", (bool,)),
    (click.types.IntParamType, "a whole number", (int,)),
    (click.types.FloatParamType, "a number", (int, float)),
)


def _group_of(parameter: click.Parameter) -> str:
    if parameter.name in _IN_AND_OUT or "--help" in parameter.opts:
        return _FILES
    name = "tasks" if parameter.name == "task" else parameter.name
    for title, names in _NAMES.items():
        if name in names:
            return title
    return _OWN
