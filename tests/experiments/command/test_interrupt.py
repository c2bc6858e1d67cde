"""Ctrl-C is said to have been heard, and is never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def interruptible(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, text=True, env=os.environ,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell may have told its background jobs to ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def test_ctrl_c_is_acknowledged_while_python_cannot_run_and_ends_at_once_the_second_time() -> None:
    # Nothing but the product takes the main thread so much of a processor's time.
    script = (
        "import hashlib, threading, time\n"
        "from experiments.command.interrupt import acknowledged\n"
        "clock = time.pthread_getcpuclockid(threading.main_thread().ident)\n"
        "def watch():\n"
        "    while time.clock_gettime(clock) < began + 0.2:\n"
        "        time.sleep(0.01)\n"
        "    print('go', flush=True)\n"
        "with acknowledged():\n"
        "    began = time.clock_gettime(clock)\n"
        "    threading.Thread(target=watch, daemon=True).start()\n"
        "    hashlib.pbkdf2_hmac('sha512', b'', b'', 2_000_000_000)\n"
    )
    process = interruptible(script)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "go\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == (
        "recast: stopping at the next batch (Ctrl-C again ends at once)\n"
    )
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=240)
    assert process.returncode == 130
    assert rest.startswith("recast: ended at once")


def test_an_interrupt_that_python_loses_is_raised_again_and_is_no_second_one() -> None:
    script = (
        "import signal, time\n"
        "from experiments.command.interrupt import acknowledged\n"
        "from server.terminate import Terminated, interrupt_on_terminate\n"
        "class Deaf:\n"
        "    def __del__(self):\n"
        "        print('go', flush=True)\n"
        "        time.sleep(240)\n"
        "with interrupt_on_terminate():\n"
        "    for kind in (KeyboardInterrupt, Terminated):\n"
        "        try:\n"
        "            with acknowledged():\n"
        "                Deaf()\n"
        "                time.sleep(240)\n"
        "        except kind as heard:\n"
        "            print(type(heard).__name__, flush=True)\n"
    )
    process = interruptible(script)
    assert process.stdout is not None
    for number, name in ((signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Terminated")):
        assert process.stdout.readline() == "go\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{name}\n"
    _, said = process.communicate(timeout=240)
    assert (process.returncode, said) == (
        0, "recast: stopping at the next batch (Ctrl-C again ends at once)\n",
    )  # fmt: skip
