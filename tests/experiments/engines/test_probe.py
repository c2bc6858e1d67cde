"""A probe sees the images that a run's clients see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.engines.probe import probe_of
from recast_core.settings import Settings
from server.prepare import make_start
from server.rounds.state import TaskState


def test_a_probe_goes_on_without_images_that_a_run_goes_on_without(
    tiny: Callable[..., Settings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    for name, shade in (("a", 40), ("b", 160)):
        (tmp_path / name).mkdir()
        for index in range(8):
            image = (shade + random.integers(0, 40, (8, 8))).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{index}.png")
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    source = f"folder:{tmp_path}"
    for skip in (False, True):
        caplog.clear()
        settings = tiny(tasks=f"x={source}", skip_unreadable=skip)
        start = make_start(settings)
        probe = probe_of(settings, start, own=True)
        assert probe is not None
        vector = np.zeros(start.sent, np.float32)
        score = probe.of(TaskState(1, "x", vector, source=source, classes=("a", "b")))
        assert (score is not None) == skip
        assert ("no probe for task x" in caplog.text) != skip
        assert score is None or score(vector) == 1
