"""The live page of a real federation, in a real browser, and what may be asked of it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from experiments.web.app import make_app
from experiments.web.launch import live_page
from experiments.web.source import Source
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.record.registry import Registry
from tests.experiments.ends import LONG

if TYPE_CHECKING:
    from conftest import Process
    from playwright.sync_api import Browser, Page

HERE = ("127.0.0.1", "localhost", "testserver")


def refreshed(page: Page) -> int:
    return int(page.evaluate("document.documentElement.dataset.refreshed || 0"))


def test_a_federation_is_watched_in_a_browser_from_its_first_client_to_its_end(
    browser: Browser,
    tiny: Callable[..., Settings],
    command_line: Callable[[Settings], list[str]],
    start: Callable[..., Process],
    deal: Callable[..., None],
    tmp_path: Path,
) -> None:
    settings = tiny(rounds=60, run_dir=str(tmp_path / "run"), evaluate_every=1, max_lag=0.0)
    deal(settings, 2, tmp_path / "data")
    server = start(
        "server", "serve", "--listen", "127.0.0.1:0", "--insecure", "--clients", "2",
        "--web", "127.0.0.1:0", *command_line(settings),
    )  # fmt: skip
    url = server.says(r"live page at (http://127\.0\.0\.1:\d+/)")[1]
    port = int(server.says(r"listening at 127\.0\.0\.1:(\d+)\D")[1])
    page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
    page.set_default_timeout(1000 * LONG)
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(url)
    page.get_by_role("heading", name="Waiting for the run to begin").wait_for()
    edges = [
        start(
            f"edge-{n}", "join", f"localhost:{port}", "--name", f"edge-{n}", "--number", str(n),
            "--data", f"data/{n}", "--cache", f"cache/{n}", "--device", "cpu", "--insecure",
        )
        for n in (0, 1)
    ]  # fmt: skip
    page.locator("#live-map li", has_text="edge-1").wait_for()
    # With one client held the run does not end, however long the browser takes to look at it.
    server.says(r"round 3: 2 updates")
    edges[1].process.send_signal(signal.SIGSTOP)
    page.locator("#live-legend .working", has_text="1 working").wait_for()
    page.locator("#live-legend .idle", has_text="1 idle").wait_for()
    page.locator("#plot-accuracy svg .mark-symbol path").first.wait_for()
    page.get_by_label("Find").fill("edge-0")
    before, ends = refreshed(page), time.monotonic() + LONG
    edges[1].process.send_signal(signal.SIGCONT)
    while refreshed(page) <= before:
        assert time.monotonic() < ends
        time.sleep(0.1)
    assert page.get_by_label("Find").input_value() == "edge-0"
    assert page.locator("#clients tbody tr:visible th").all_inner_texts() == ["edge-0"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert [process.ends() for process in (server, *edges)] == [0, 0, 0]
    page.locator("#live-link", has_text="away").wait_for()
    page.get_by_text("finished").first.wait_for()
    assert said == []
    with Registry(tmp_path / "run" / "registry.sqlite") as registry:
        assert set(registry.client_names(1).values()) == {"edge-0", "edge-1"}


def test_without_the_token_nothing_is_shown_and_with_it_once_everything(tmp_path: Path) -> None:
    client = TestClient(make_app(Source(tmp_path / "none"), "secret", ["*"]))
    for path in ("/", "/events", "/?token=wrong"):
        assert client.get(path).status_code == 403
    welcome = client.get("/?token=secret", follow_redirects=False)
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/")
    assert "HttpOnly" in welcome.headers["set-cookie"]
    assert "Waiting for the run" in client.get("/").text


def test_the_page_is_to_read_only_and_for_its_own_name_only(large: Path) -> None:
    client = TestClient(make_app(Source(large), None, HERE))
    for method in ("post", "put", "delete", "patch"):
        assert getattr(client, method)("/").status_code == 405
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    answer = client.get("/")
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "connect-src 'self'" in answer.text
    assert client.get("/registry.sqlite").status_code == 404


def test_reading_takes_no_lock_and_leaves_the_registry_as_it_was(large: Path) -> None:
    source = Source(large)
    writer = sqlite3.connect(large, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # a server in the middle of a record
    before = source.version
    # Whoever needs the lock waits for it in vain, and then has nothing to show.
    assert "large" in source.page()
    writer.execute("ROLLBACK")
    writer.close()
    assert source.version == before
    assert source.page() is source.page()


def test_an_older_registry_is_not_changed_by_looking_at_it(large: Path, tmp_path: Path) -> None:
    shutil.copy(large, tmp_path / "registry.sqlite")
    with sqlite3.connect(tmp_path / "registry.sqlite") as connection:
        connection.execute("PRAGMA user_version = 3")
    assert "Waiting" in Source(tmp_path / "registry.sqlite").page()
    with sqlite3.connect(tmp_path / "registry.sqlite") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)


def test_the_page_ends_with_its_server_and_a_taken_port_is_one_error(tmp_path: Path) -> None:
    with live_page("127.0.0.1:0", None, tmp_path / "none", lambda: {"now": "x"}) as url:
        with urllib.request.urlopen(url, timeout=LONG) as answer:
            assert answer.status == 200
        port = re.search(r":(\d+)/", url)
        assert port is not None
        with (
            pytest.raises(RecastError, match="Address already in use"),
            live_page(f"127.0.0.1:{port[1]}", None, tmp_path / "none", dict),
        ):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=LONG)


def test_the_state_is_what_the_server_said_last(tmp_path: Path) -> None:
    source = Source(tmp_path / "none")
    source.follow([json.dumps({"now": "a"}), "no json", json.dumps({"now": "b"})])
    assert source.state == {"now": "b"}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "registry.sqlite"
    with Registry(path) as registry:
        run = registry.start_run({"seed": 1}, bytes(32), {}, "recast serve")
        registry.add_task(run, "t", 2)
        registry.finish_run(run, "finished")
    return path


def test_the_page_of_a_registry_in_a_database_is_made_anew_when_something_was_recorded(
    database: str, tmp_path: Path
) -> None:
    source = Source(tmp_path / "registry.sqlite")
    assert "Waiting" in source.page()
    with Registry(tmp_path / "registry.sqlite", url=database) as registry:
        registry.claim()
        registry.start_run({}, bytes(32), {}, "recast serve")
        first = source.version
        assert "Waiting" not in source.page()
        assert source.version == first
        registry.add_task(1, "a-new-task")
        assert source.version != first
        assert "a-new-task" in source.page()
