"""The documentation site: everything is in it, and it is built without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[1]


def test_every_document_has_a_place_in_the_site() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("nav:")[2]
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert [str(page) for page in pages if f": {page}" not in nav] == []


def test_the_site_is_built_with_warnings_as_errors_and_its_reference_has_words(
    tmp_path: Path, browser: Browser
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "api" / "recast_core.html").read_text("utf-8")
    assert "Attach a bank" in page or "attach" in page
    assert "TemplateBank" in page
    asked: list[str] = []
    look = browser.new_page(viewport={"width": 1280, "height": 800})
    look.set_default_timeout(240_000)
    look.on("request", lambda request: asked.append(request.url))
    look.goto((tmp_path / "api" / "recast.html").as_uri())
    look.click("input.md-search__input")
    look.keyboard.type("dirichlet")
    look.wait_for_selector(".md-search-result__item")  # also where nothing but the disk is there
    assert [url for url in asked if not url.startswith(tmp_path.as_uri())] == []
