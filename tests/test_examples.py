"""The suite's examples are the same each time, and whoever searches for new ones gets them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import SAME, SEARCH

ROOT = Path(__file__).parents[1]


def drawn() -> list[tuple[int, str]]:
    seen: list[tuple[int, str]] = []

    @settings(settings.get_profile(SAME), max_examples=200)
    @given(number=st.integers(), text=st.text())
    def look(number: int, text: str) -> None:
        seen.append((number, text))

    look()
    return seen


def test_the_examples_do_not_depend_on_what_was_imported_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--hypothesis-profile"):
        pytest.skip("a search draws other examples each time")
    first = drawn()
    source = tmp_path / "constants.py"
    source.write_text("".join(f"A{i} = {i * 7919}\nB{i} = 'word {i}'\n" for i in range(100)))
    module = ModuleType("constants")
    module.__file__ = str(source)
    monkeypatch.setitem(sys.modules, "constants", module)
    assert drawn() == first


def test_the_profile_is_the_suites_own_unless_another_is_named(
    request: pytest.FixtureRequest,
) -> None:
    named = request.config.getoption("--hypothesis-profile")
    assert settings.get_current_profile_name() == (named or SAME)


def test_the_profile_that_the_command_line_names_wins() -> None:
    command = [sys.executable, "-m", "pytest", f"--hypothesis-profile={SEARCH}", __file__]
    shown = subprocess.run(
        [*command, "-vv", "--collect-only", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert f"hypothesis profile '{SEARCH}'" in shown.stdout, shown.stdout + shown.stderr
