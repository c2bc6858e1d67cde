"""A client needs none of the packages that simulations, reports and plots are made with."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recast_core.settings import Settings

if TYPE_CHECKING:
    from conftest import Process

ROOT = Path(__file__).parents[3]
ABSENT = (
    "flwr_datasets", "datasets", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib",
    "vl_convert", "timm", "transformers", "huggingface_hub", "onnx", "onnxruntime", "tensorboard",
    "wandb", "mlflow", "dp_accounting", "prometheus_client", "sqlalchemy",
)  # fmt: skip
WITHOUT = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError("absent: " + name, name=name)
sys.meta_path.insert(0, Absent())
"""


def test_all_of_a_client_is_imported_without_them() -> None:
    script = f"""{WITHOUT}
import pkgutil
from importlib import import_module
import client, experiments.command.join
for module in pkgutil.walk_packages(client.__path__, "client."):
    import_module(module.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr


def test_a_client_without_them_joins_and_learns(
    tiny: Callable[..., Settings],
    command_line: Callable[[Settings], list[str]],
    start: Callable[..., Process],
    deal: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = tiny(tasks=tiny().tasks.split()[0], run_dir=str(tmp_path / "run"))
    deal(settings, 1, tmp_path / "data")
    server = start(
        "server", "serve", "--listen", "127.0.0.1:0", "--clients", "1", "--insecure",
        *command_line(settings),
    )  # fmt: skip
    port = server.says(r"listening at 127\.0\.0\.1:(\d+)\D")[1]
    (tmp_path / "lean").mkdir()
    (tmp_path / "lean" / "lean.py").write_text(f"{WITHOUT}\nimport recast_fl\nrecast_fl.main()\n")
    done = subprocess.run(
        [
            sys.executable, "-P", "lean/lean.py", "join", f"127.0.0.1:{port}", "--insecure",
            "--name", "edge-0", "--data", "data/0", "--cache", "cache", "--device", "cpu",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert server.ends() == 0
    assert "round 1: 1 update, " in server.log.read_text()


def test_the_base_lists_none_of_them_and_the_readme_installs_what_its_command_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = " ".join(project["dependencies"])
    for name in ("flwr-datasets", "scikit-learn", "scipy", "pandas", "matplotlib", "pyarrow"):
        assert name not in base
    extras = project["optional-dependencies"]
    assert extras["edge"] == []
    assert set(extras["sim"]) <= set(extras["test"])
    line = next(x for x in (ROOT / "README.md").read_text().splitlines() if "recast simulate" in x)
    assert "pip install '.[sim]'" in line


def test_without_the_extra_sim_a_command_names_it_in_one_line(tmp_path: Path) -> None:
    script = WITHOUT.replace(", 'sqlalchemy'", "")
    script += "\nimport sys, recast_fl\nsys.argv = ['recast', 'simulate']\nrecast_fl.main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True,
        timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2, "recast: the data digits needs scikit-learn: `pip install 'recast-fl[sim]'`\n",
    )  # fmt: skip
