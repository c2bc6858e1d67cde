"""``flwr run`` and the command line start from the same defaults."""

from __future__ import annotations

import tomllib
from pathlib import Path

from recast_core.settings import Settings

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_flowers_run_config_has_every_setting_at_its_default() -> None:
    config = tomllib.loads(PYPROJECT.read_text())["tool"]["flwr"]["app"]["config"]
    wanted = Settings().as_dict()
    assert config == wanted
    assert {key: type(value) for key, value in config.items()} == {
        key: type(value) for key, value in wanted.items()
    }
    assert Settings.from_mapping(config) == Settings()
