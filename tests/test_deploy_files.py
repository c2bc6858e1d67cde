"""Container and unit files call `recast` with options that it has, and name what is there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from experiments.command.cli import recast
from experiments.measure import deal

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "deploy"
UNITS = sorted(FOLDER.glob("*.service"))


def parse(words: list[str]) -> dict[str, Any]:
    """The options of a `recast` command line, as click reads them."""
    command = recast.commands[words[0]]
    if isinstance(command, click.Group):
        command, words = command.commands[words[1]], words[1:]
    return command.make_context(words[0], words[1:]).params


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return found


def test_the_services_run_commands_that_recast_has() -> None:
    services = compose()["services"]
    server = parse(services["server"]["command"])
    assert server["clients"] == 3
    assert server["listen"].endswith(":9441")
    shell = services["certs"]["command"][0]
    made = parse(shlex.split(shell[shell.index("exec recast") :])[2:])
    for name in ("edge-1", "edge-2", "edge-3"):
        client = parse(services[name]["command"])
        assert client["server"] == "server:9441"
        assert client["name"] in made["names"]
    assert "server" in made["hosts"]
    images = deal.main.make_context("deal", services["images"]["command"]).params
    assert images["clients"] == 3
    assert images["tasks"] == server["tasks"]


def test_what_a_service_mounts_and_shares_is_declared() -> None:
    whole = compose()
    for service in whole["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).is_file()
            else:
                assert source in whole["volumes"]
    port = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    target = port["scrape_configs"][0]["static_configs"][0]["targets"][0]
    assert target == f"127.0.0.1:{parse(whole['services']['server']['command'])['metrics']}"
    assert whole["services"]["prometheus"]["network_mode"] == "service:server"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_runs_a_command_that_recast_has(
    unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = unit.read_text()
    line = re.search(r"^ExecStart=/opt/recast/bin/recast (.*)$", text, re.M)
    assert line is not None
    (tmp_path / "run.toml").write_text("rounds = 2\n[serve]\nclients = 3\n")
    said = line[1].replace("/etc/recast/run.toml", str(tmp_path / "run.toml"))
    found = parse(shlex.split(said))
    assert found["certs"] == Path("/etc/recast/certs")
    assert "RestartPreventExitStatus=2" in text
    if shutil.which("systemd-analyze"):
        copy = tmp_path / unit.name
        copy.write_text(text.replace("/opt/recast/bin/recast", "/bin/true"))
        done = subprocess.run(
            ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_an_image_is_built_of_what_is_there() -> None:
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    for name in (line[1:].rstrip("/") for line in kept if line.startswith("!")):
        assert (ROOT / name).exists(), name
    packages = {"client", "experiments", "protos", "recast_core", "server"}
    assert packages <= {line[1:].rstrip("/") for line in kept}
    text = (FOLDER / "Containerfile").read_text()
    assert "USER 10001" in text
