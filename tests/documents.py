"""The commands in the documents: found, and run in the order in which a reader would."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from experiments.command import cli

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.S | re.M)
_SHELL = ("sh", "bash", "shell", "console")
_STARTS = ("recast ", "python ", "python3 ", "flwr ", "flower-", "pip ", ".venv/", "export ")
_SECONDS = 900.0
# Served in processes of their own; everything else runs in this one, which has torch already.
_LONG = ("serve", "join")
_PROGRAM = "from experiments.command.cli import main; main()"


@dataclass(frozen=True)
class Command:
    """One command as a document has it.

    Attributes:
        where: the document and line, for messages.
        words: as a shell splits it, variables before it left out.
        variables: set for it.
        background: whether ``&`` ends it.
    """

    where: str
    words: tuple[str, ...]
    variables: Mapping[str, str]
    background: bool

    @property
    def text(self) -> str:
        return " ".join(self.words)


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(document: Path) -> list[Command]:
    """All commands of a document, in order."""
    text = document.read_text()
    found: list[Command] = []
    for fence in _FENCE.finditer(text):
        kind, body = fence[1].strip(), fence[2]
        line = text[: fence.start(2)].count("\n") + 1
        if kind in _SHELL:
            joined = re.sub(r"\\\n\s*", " ", body)
            for part in joined.splitlines():
                found += _parsed(part, f"{document.name}:{line}")
        elif not kind:
            loose = [part for part in body.splitlines() if part.lstrip().startswith(_STARTS)]
            assert not loose, f"{document.name}:{line}: label this block sh: {loose[0]}"
    return found


def _parsed(line: str, where: str) -> list[Command]:
    found = []
    for part in re.split(r"\s&&\s", line):
        words = shlex.split(part, comments=True)
        background = bool(words) and words[-1] == "&"
        words = words[:-1] if background else words
        variables = {}
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        if words:
            found.append(Command(where, tuple(words), variables, background))
    return found


@dataclass
class Reader:
    """Runs a document's commands in a folder.

    Attributes:
        folder: where they run.
        added: options for commands that begin with a text, the longest that fits.
        skipped: why commands that begin with a text are not run here.
        port: in the place of the documents' 9441.
    """

    folder: Path
    added: Mapping[str, str]
    skipped: Mapping[str, str]
    port: int
    ran: list[str] = field(default_factory=list)
    _running: list[tuple[Command, subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def run(self, command: Command) -> None:
        if any(command.text.startswith(text) for text in self.skipped):
            return None
        fitting = [text for text in self.added if command.text.startswith(text)]
        added = shlex.split(self.added[max(fitting, key=len)]) if fitting else []
        words = [word.replace("9441", str(self.port)) for word in (*command.words, *added)]
        self.ran.append(command.text)
        if words[0].endswith("pip") or words[:3] == ["python3", "-m", "venv"]:
            return _check_installation(command)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in command.variables.items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            patch.syspath_prepend(str(self.folder))
            if Path(words[0]).name == "recast":
                self._recast(command, words[1:], patch)
            elif words[:2] == ["python", "-m"]:
                patch.setattr(sys, "argv", words[2:])
                # As in a process of its own, where nobody has imported it.
                patch.delitem(sys.modules, words[2], raising=False)
                _ends(command, lambda: runpy.run_module(words[2], run_name="__main__"))
            elif words[0] == "python":
                patch.setattr(sys, "argv", words[1:])
                path = str(ROOT / words[1])
                _ends(command, lambda: runpy.run_path(path, run_name="__main__"))
            else:
                done = subprocess.run(words, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{command.where}: {command.text}\n{done.stderr}"
        return None

    def _recast(self, command: Command, words: list[str], patch: pytest.MonkeyPatch) -> None:
        if words[0] == "serve" or command.variables:
            self.finish()
        if words[0] in _LONG or command.background or command.variables:
            log = self.folder / f"log-{len(self.ran)}"
            with log.open("wb") as out:
                process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, *words], cwd=self.folder, stdout=out,
                    stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
                )  # fmt: skip
            self._running.append((command, process, log))
            return
        if words[0] == "tasks" and self._running:
            self._wait_for_clients()
        patch.setattr(sys, "argv", ["recast", *words])
        _ends(command, cli.main)

    def _wait_for_clients(self) -> None:
        """As a reader would, who sees the server say that they are there."""
        command, process, log = self._running[0]
        joins = [other.words for other, _, _ in self._running if other.words[1] == "join"]
        names = [words[words.index("--name") + 1] for words in joins]
        wanted = [b"bank sent", *(f"client {name} joined".encode() for name in names)]
        deadline = time.monotonic() + _SECONDS
        while True:
            ended = process.poll() is not None  # looked at first: it may say it and end
            said = log.read_bytes()
            if all(text in said for text in wanted):
                return
            assert not ended, f"{command.where}: {command.text}\n{log.read_text()}"
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

    def finish(self) -> None:
        """Wait for what was started to end well."""
        deadline = time.monotonic() + _SECONDS
        try:
            for command, process, log in self._running:
                code = process.wait(max(1.0, deadline - time.monotonic()))
                assert code == 0, f"{command.where}: {command.text}: {code}\n{log.read_text()}"
        finally:
            self.stop()

    def stop(self) -> None:
        """End what still runs."""
        for _, process, _ in self._running:
            process.kill()
            process.wait()
        self._running.clear()


def _ends(command: Command, call: object) -> None:
    assert callable(call)
    code: object = None
    try:
        call()
    except SystemExit as end:
        code = end.code
    assert code in (0, None), f"{command.where}: {command.text} ends with {code}"


def _check_installation(command: Command) -> None:
    """Without a network: that what is to be installed is there, and its extras are."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in command.words[1:]:
        if match := re.fullmatch(r"\.(?:\[(.+)\])?", word):
            for extra in (match[1] or "").split(","):
                known = extras["optional-dependencies"]
                assert not extra or extra in known, f"{command.where}: no extra {extra}"
