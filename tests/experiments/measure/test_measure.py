"""`recast measure` without Flower's programs: a stand-in that sends known bytes through relays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from experiments.command.program import program
from experiments.measure import run as measure_run
from experiments.measure.processes import Processes
from experiments.measure.relay import Relays
from experiments.measure.run import Plan, measure
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.record.registry import Registry
from server.record.rows import FinishedRound, LedgerRow, Measured
from tests.experiments.ends import LONG, patiently

ROW_KEYS = {
    "method", "transport", "task", "rounds", "payload_up", "payload_down", "message_up",
    "message_down", "wire_up", "wire_down", "bank_down", "accuracy",
}  # fmt: skip
JOIN, IDLE, BANK, ROUND, EVALUATION = 50, 7, 5000, 100, 30


class Scripted:
    """A deployment of threads: each step sends known bytes up, and is answered with as many."""

    def __init__(self, folder: Path, relays: Relays, clients: int, secure: bool) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        self.relays = [relays.open(self._server.getsockname()) for _ in range(clients)]
        self._sockets: dict[int, socket.socket] = {}
        self._run: threading.Thread | None = None
        # When what is recorded next came to its end, however late that is recorded.
        self.now = datetime.now(UTC)
        self.stopped = False

    def _serve(self) -> None:
        def echo(peer: socket.socket) -> None:
            with peer:
                while data := peer.recv(65536):
                    peer.sendall(data)

        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(peer,), daemon=True).start()

    def _send(self, client: int, size: int) -> None:
        try:
            self._exchange(client, size)
        except OSError:  # the relay was cut: a real client connects again
            self._connect(client)
            self._exchange(client, size)

    def _exchange(self, client: int, size: int) -> None:
        peer = self._sockets[client]
        peer.sendall(bytes(size))
        while size:
            got = len(peer.recv(65536))
            if not got:
                raise ConnectionResetError
            size -= got

    def _connect(self, client: int) -> None:
        self._sockets[client] = socket.create_connection(("127.0.0.1", self.relays[client].port))

    period = 0.1

    def start(self, settings: Settings) -> None:
        self._folder = Path(settings.run_dir)

    def join(self, client: int) -> None:
        self._connect(client)
        self._send(client, JOIN)

    def begin(self) -> None:
        self._run = threading.Thread(target=self._learn, args=(self._folder,))
        self._run.start()

    def _learn(self, folder: Path) -> None:
        def step(size: int) -> None:
            """What every client sends and gets back, and the commit that ends its phase at once."""
            for client in self._sockets:
                self._send(client, size)

        with Registry(folder / "registry.sqlite") as registry:
            run = registry.start_run({}, bytes(32), {})
            step(BANK)
            for name in ("a", "b"):
                registry.add_task(run, name, 2)
            for number, name in enumerate(("a", "b"), 1):
                for round_ in (1, 2):
                    began = datetime.now(UTC)
                    time.sleep(0.01)  # a server prepares what it sends
                    step(ROUND)
                    self.now = datetime.now(UTC)
                    took = (self.now - began).total_seconds()
                    message = LedgerRow(name, round_, "0", "up", "coefficients", "message", 45)
                    found = FinishedRound(number, round_, np.zeros(2, np.float32), 1, 1, took)
                    registry.record_rounds(run, [found], [message])
                step(EVALUATION)
                self.now = datetime.now(UTC)
                registry.record_accuracies(run, [Measured(number, 2, 0.5, 0.4, 1, 1, number)])
            registry.finish_run(run, "finished")

    def running(self) -> bool:
        assert self._run is not None
        return self._run.is_alive()

    def client_id(self, client: int) -> str:
        return str(client)

    def stop_client(self, client: int, kill: bool = False) -> None: ...

    def stop(self) -> None:
        self.stopped = True
        self._server.close()
        for peer in self._sockets.values():
            peer.close()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    made: list[Scripted] = []

    def opener(folder: Path, relays: Relays, clients: int, secure: bool) -> Scripted:
        made.append(Scripted(folder, relays, clients, secure))
        return made[-1]

    monkeypatch.setattr(measure_run, "DEPLOYMENTS", dict(measure_run.DEPLOYMENTS))
    measure_run.register_transport("scripted", opener)
    for taken in ("link", "sequential"):
        with pytest.raises(RecastError, match=f"a transport '{taken}' already"):
            measure_run.register_transport(taken, opener)
    monkeypatch.setattr(measure_run, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr("server.record.registry.now", lambda: made[-1].now.isoformat())
    return made


def test_every_byte_of_the_relays_is_in_the_ledger_under_its_task(
    scripted: list[Scripted], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(run_dir=str(tmp_path / "out"))
    report = measure(settings, Plan(["recast"], ["scripted"], 3, secure=False, idle=0))
    first, second = report["rows"]
    assert first.keys() == second.keys() == ROW_KEYS
    task = 2 * ROUND + EVALUATION
    assert [row["task"] for row in report["rows"]] == ["a", "b"]
    for row in report["rows"]:
        assert (row["wire_up"], row["wire_down"], row["rounds"]) == (task, task, 2)
        assert row["accuracy"] == 0.5
    assert (first["bank_down"], second["bank_down"]) == (BANK, 0)
    assert first["message_up"] == 2 * 45 // 3
    overheads = {entry["what"]: entry["wire_up"] for entry in report["connection"]}
    assert overheads == {"join": JOIN, "greeting and bank": BANK}
    with Registry(tmp_path / "out" / "recast-scripted" / "run" / "registry.sqlite") as registry:
        totals = Ledger(registry).totals(1, by=("client", "direction", "layer"))
    for client, relay in enumerate(scripted[0].relays):
        counted = relay.counted()
        assert totals[str(client), "up", "wire"] == counted.up == JOIN + BANK + 2 * task
        assert totals[str(client), "down", "wire"] == counted.down
    assert scripted[0].stopped
    assert "| recast | scripted | a | 2 | 50.0 % |" in capsys.readouterr().out


def test_an_engine_has_no_wire(tiny: Callable[..., Settings]) -> None:
    report = measure(tiny(), Plan(["recast"], ["sequential"], 2, secure=False, idle=0))
    assert [row["task"] for row in report["rows"]] == ["a", "b"]
    for row in report["rows"]:
        assert row.keys() == ROW_KEYS
        assert (row["wire_up"], row["wire_down"]) == (None, None)
        assert row["message_up"] > row["payload_up"] > 0
    assert report["rows"][0]["bank_down"] > 100_000
    assert report["connection"] == report["rounds"] == []


def test_other_methods_are_measured_by_the_names_that_simulate_takes(
    tiny: Callable[..., Settings], tmp_path: Path
) -> None:
    methods = ["head-only", "lora:1:layer?.0.conv1", "norm-affine"]
    settings = tiny(run_dir=str(tmp_path / "out"))
    report = measure(settings, Plan(methods, ["folded"], 2, secure=False, idle=0))
    sent = {row["method"]: row["payload_up"] for row in report["rows"] if row["task"] == "a"}
    assert list(sent) == methods
    assert sent["head-only"] == 0
    assert min(sent["lora:1:layer?.0.conv1"], sent["norm-affine"]) > 0
    assert all(0 < row["accuracy"] <= 1 for row in report["rows"])
    with pytest.raises(RecastError, match="did you mean"):
        Plan(["loar"], ["folded"], 2, secure=False, idle=0)


def test_a_failed_run_stops_everything_and_keeps_its_logs(
    scripted: list[Scripted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Scripted) -> bool:
        raise RecastError("the server ended: read its log")

    monkeypatch.setattr(Scripted, "begin", lambda self: None)
    monkeypatch.setattr(Scripted, "running", fail)
    with pytest.raises(RecastError, match="read its log"):
        measure(
            Settings(run_dir=str(tmp_path / "out")),
            Plan(["recast"], ["scripted"], 1, secure=False, idle=0),
        )
    assert scripted[0].stopped


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def names(folder: Path, out: Path) -> bool:
    """Whether the process of ``folder`` was started with that folder; not one that has ended."""
    try:
        return str(out).encode() in (folder / "cmdline").read_bytes()
    except OSError:
        return False


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Path]:
    """A program whose child has left its session and ignores requests to end."""
    path = tmp_path / "parent.py"
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    path.write_text(
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
        "print('child', child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    return path


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_nothing_is_left_of_what_was_started(script: Path, tmp_path: Path) -> None:
    with Processes(tmp_path / "logs", {}) as processes:
        parent = processes.start("parent", [sys.executable, str(script)])
        parent.wait_for("child", LONG)
        child = int(parent.said().split()[1])
        assert alive(child)
    assert not parent.running
    assert not alive(child)


def test_a_program_that_ends_early_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs", {}) as processes:
        child = processes.start(
            "short", [sys.executable, "-c", "print('no port'); raise SystemExit(3)"]
        )
        with pytest.raises(RecastError, match=r"short ended with code 3 .*\(no port\): read .*log"):
            child.wait_for("ready", LONG)
        with pytest.raises(RecastError, match="cannot start /no/program"):
            processes.start("none", ["/no/program"])


def test_an_interrupt_of_the_command_leaves_no_process(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*program(), "measure", "--transports", "flower",
         "--clients", "1", "--run-dir", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line == "flower: starting the server\n"
    log = out / "recast-flower" / "logs" / "superlink.log"
    patiently(lambda: log.exists() or process.poll() is not None)
    assert process.poll() is None, process.stderr.read()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=LONG)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    left = [folder.name for folder in Path("/proc").glob("[0-9]*") if names(folder, out)]
    assert left == []
