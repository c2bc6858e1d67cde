"""The page in a real browser: it draws, says what the registry says, and loads nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from experiments.report import report
from experiments.report.several import report_several

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FIGURES = {"accuracy", "forgetting", "bytes", "tradeoff", "refusals"}


@dataclass
class Loaded:
    """An open page, and what it said and asked for while it loaded."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def load(browser: Browser) -> Iterator[Callable[..., Loaded]]:
    contexts = []

    def go(path: Path, width: int = 1200, scheme: Any = "light") -> Loaded:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        context.set_default_timeout(240_000)
        contexts.append(context)
        found = Loaded(context.new_page())
        found.page.on("console", lambda message: found.said.append(message.text))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("dialog", lambda dialog: found.said.append(f"dialog {dialog.message}"))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(path.as_uri())
        found.page.wait_for_selector("html[data-ready]")
        return found

    yield go
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def large_page(large_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    report(large_run, path)
    return path


@pytest.mark.parametrize("width", [380, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_plot_draws_and_nothing_leaves_the_page(
    load: Callable[..., Loaded], large_page: Path, width: int, scheme: str
) -> None:
    loaded = load(large_page, width, scheme)
    page = loaded.page
    assert loaded.said == []
    assert loaded.asked == [large_page.as_uri()]
    for name in FIGURES:
        marks = page.locator(
            f"#plot-{name} svg .mark-rect path, #plot-{name} svg .mark-symbol path"
        )
        assert marks.count() > 0, name
        box = page.locator(f"#plot-{name} svg").bounding_box()
        assert box is not None
        assert 0 < box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_marks_take_their_colour_from_the_theme(
    load: Callable[..., Loaded], large_page: Path
) -> None:
    fills = {
        scheme: load(large_page, 1200, scheme).page.evaluate(
            "getComputedStyle(document.querySelector('#plot-refusals .mark-rect path')).fill"
        )
        for scheme in ("light", "dark")
    }
    assert fills["light"] != fills["dark"]
    assert all(fill.startswith("rgb(") and fill != "rgb(0, 0, 0)" for fill in fills.values())


def test_the_client_table_sorts_by_number(load: Callable[..., Loaded], large_page: Path) -> None:
    page = load(large_page).page
    heading = page.locator("#clients th", has_text="images")
    for order, way in (("ascending", 1), ("descending", -1)):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == order
        shown = page.locator("#clients tbody tr td:nth-child(3)").all_inner_texts()
        numbers = [int(text) for text in shown]
        assert len(set(numbers)) > 10
        assert numbers == sorted(numbers)[::way]


def test_markup_that_came_over_the_network_stays_text(
    load: Callable[..., Loaded], hostile_run: Path, tmp_path: Path
) -> None:
    report(hostile_run, tmp_path / "report.html")
    loaded = load(tmp_path / "report.html")
    assert loaded.said == []
    assert len(loaded.asked) == 1
    page = loaded.page
    assert page.locator("main img, main script, main b").count() == 0
    assert page.locator("script").count() == 3
    assert "{{ 7 * 7 }}" in page.locator("#clients").inner_text()
    page.locator("#plot-bytes .mark-rect path").first.hover()
    page.locator("#vg-tooltip-element", has_text="<script>").wait_for()
    assert loaded.said == []


def test_a_script_that_slips_in_does_not_run(
    load: Callable[..., Loaded], large_page: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tampered.html"
    slipped = "<script>window.slipped = 1</script><img src=x onerror='window.slipped = 1'></main>"
    path.write_text(large_page.read_text().replace("</main>", slipped, 1))
    loaded = load(path)
    while not any("Content Security Policy" in line for line in loaded.said):
        loaded.page.wait_for_event("console", timeout=240_000)
    assert loaded.page.evaluate("window.slipped") is None


def test_a_search_and_all_rows_say_how_many_of_how_many(
    load: Callable[..., Loaded], large_page: Path
) -> None:
    page = load(large_page).page
    shown, count = page.locator("#clients tbody tr:visible"), page.locator("[data-count=clients]")
    assert (shown.count(), count.inner_text()) == (15, "15 of 100 clients")
    page.get_by_role("button", name="Show all 100").click()
    assert (shown.count(), count.inner_text()) == (100, "100 of 100 clients")
    page.get_by_label("Find").fill("client 10")
    assert count.inner_text() == "2 of 2 clients found of 100"
    assert shown.locator("th").all_inner_texts() == ["client 10", "client 100"]


def test_no_name_on_the_page_is_a_long_number(
    load: Callable[..., Loaded], large_page: Path
) -> None:
    assert not re.search(r"\d{18,}", load(large_page).page.locator("main").inner_text())


def test_a_table_that_is_cut_off_says_so_until_its_end(
    load: Callable[..., Loaded], large_page: Path
) -> None:
    page = load(large_page, 390).page
    box = page.locator("#clients").locator("xpath=..")
    assert box.get_attribute("data-more") is not None
    box.evaluate("(box) => { box.scrollLeft = box.scrollWidth; }")
    page.locator(".scroll:not([data-more]) > #clients").wait_for()
    assert load(large_page, 1920).page.locator("#clients").locator("xpath=..").get_attribute(
        "data-more"
    ) is None  # fmt: skip


def test_paper_gets_every_row_and_no_tools(load: Callable[..., Loaded], large_page: Path) -> None:
    page = load(large_page).page
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#clients tbody tr:visible").count() == 100
    assert page.locator(".tools").is_hidden()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("#clients tbody tr:visible").count() == 15


@pytest.mark.parametrize("width", [390, 1920])
def test_several_runs_have_a_page(
    load: Callable[..., Loaded], large_run: Path, hostile_run: Path, tmp_path: Path, width: int
) -> None:
    report_several([large_run, hostile_run], tmp_path / "several.html")
    loaded = load(tmp_path / "several.html", width)
    assert loaded.said == []
    assert len(loaded.asked) == 1
    for name in ("reached", "curves", "tradeoff"):
        assert loaded.page.locator(f"#plot-{name} svg .mark-symbol path").count() > 0, name
    assert "large" in loaded.page.locator("table").first.inner_text()
    assert loaded.page.evaluate("document.documentElement.scrollWidth") <= width
