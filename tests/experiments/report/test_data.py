"""What a report says of a run, without a browser."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from experiments.report import report
from experiments.report.data import find_registry, report_data
from experiments.report.figures import accuracy_figure
from experiments.report.page import plotting_library, render
from experiments.report.plots import whole_ticks
from experiments.report.points import read_points
from experiments.report.repetition import reproduce
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.record.registry import Registry
from server.record.rows import Measured

if TYPE_CHECKING:
    from conftest import Simulated

MEASURED = {
    "method": "lora", "transport": "link", "task": "a", "rounds": 2, "payload_up": 80,
    "payload_down": 80, "message_up": 120, "message_down": 120, "wire_up": 200, "wire_down": 200,
    "bank_down": 0, "accuracy": 0.5,
}  # fmt: skip


def test_sums_agree_with_the_ledger(large_run: Path) -> None:
    data = report_data(large_run / "registry.sqlite")
    with Registry(large_run / "registry.sqlite") as registry:
        by_layer = Ledger(registry).totals(data["run"]["id"], by=("direction", "layer"))
        refused = Ledger(registry).refusals(data["run"]["id"])
    for (direction, layer), total in by_layer.items():
        of_tasks = sum(
            row["bytes"] for row in data["bytes"]
            if (row["direction"], row["layer"]) == (direction, layer)
        )  # fmt: skip
        names = [f"{layer}_{direction}", *([f"{layer}_bank"] if direction == "down" else [])]
        of_clients = sum(row[name] or 0 for row in data["clients"] for name in names)
        assert of_tasks == of_clients == total
    assert {row["reason"]: row["count"] for row in data["refusals"]} == refused
    assert sum(row["refusals"] for row in data["clients"]) == sum(refused.values())
    assert sum(row["rounds"] for row in data["clients"]) < 100 * 30
    assert all(0 < row["images"] < 6 * 75 for row in data["clients"])


def test_forgetting_is_the_largest_change_since_learning(large_run: Path) -> None:
    data = report_data(large_run / "registry.sqlite")
    assert data["forgetting"]["max_abs_change"] == pytest.approx(5 * 0.004)
    matrix = data["forgetting"]["matrix"]
    assert [[x is None for x in row] for row in matrix] == [
        [a > b for a in range(6)] for b in range(6)
    ]
    assert {row["run_round"] for row in data["accuracy"]} == {5, 10, 15, 20, 25, 30}


def test_of_a_kept_head_what_sends_nothing_stands_beside_and_gain_is_over_the_best(
    tmp_path: Path,
) -> None:
    path = tmp_path / "registry.sqlite"
    baselines = {"deployed": 0.25, "statistics": 0.5, "local head": 0.625, "either head": 0.5625}
    with Registry(path) as registry:
        run = registry.start_run({"head": "backbone"}, bytes(32), {}, "recast simulate")
        registry.add_task(run, "fog")
        registry.add_task(run, "not evaluated")
        told = Measured(1, 1, 0.75, 0.5, 100, 2, after_task=1, baselines=baselines)
        registry.record_accuracies(run, [told])
        registry.finish_run(run, "finished")
    data = report_data(path)
    first, second = data["tasks"]
    assert (first["deployed_accuracy"], first["zero_byte_accuracy"]) == (0.25, 0.625)
    assert first["baselines"] == baselines
    assert "zero_byte_accuracy" not in second
    figure = accuracy_figure(data)
    assert figure is not None
    hollow = figure.spec["layer"][-1]
    assert hollow["encoding"]["y"]["field"] == "zero_byte_accuracy"
    assert [row["zero_byte_accuracy"] for row in hollow["data"]["values"]] == [0.625]
    assert figure.legend[-1].label == "best zero-byte, no coefficients"
    page = render(data, [])
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page[page.index("1 fog</th>") :])[:4]
    assert cells == ["25.0 %", "62.5 %", "75.0 %", "+12.5"]
    head = page[page.index('<h2 id="h-tasks">') : page.index("1 fog</th>")]
    assert "best zero-byte" in head
    assert "head only" not in head


def test_a_simulated_run_gives_the_command_that_repeats_it(
    simulated: Simulated, recast: Callable[..., Any], tmp_path: Path
) -> None:
    done = recast("report", str(simulated.folder), "--json", "-", "-o", str(tmp_path / "r.html"))
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["run"]["command"].startswith("recast simulate --clients 2 --engine sequential")
    assert data["bank"]["bytes"] == simulated.report["bank"]["bytes"]
    for task, told in zip(data["tasks"], simulated.report["tasks"], strict=True):
        assert all(task[key] == told[key] for key in ("accuracy", "update_bytes", "rounds"))
        assert task["examples"] == 96
    assert [client["images"] for client in data["clients"]] == [96, 96]
    assert [client["rounds"] for client in data["clients"]] == [4, 4]
    page = (tmp_path / "r.html").read_text()
    assert "recast simulate --clients 2" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
@pytest.mark.parametrize("tasks", [0, 1])
def test_a_run_that_did_not_finish_has_a_page(tmp_path: Path, status: Any, tasks: int) -> None:
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {}, "")
        for number in range(tasks):
            registry.add_task(run, f"t{number}", 2)
        if status != "running":
            registry.finish_run(run, status)
    assert report(tmp_path)["run"]["status"] == status
    assert status in (tmp_path / "report.html").read_text()


def test_another_process_s_command_line_is_not_shown() -> None:
    config = Settings(rounds=7).as_dict()
    command, recorded = reproduce("/bin/flwr-serverapp --token secret", config)
    assert not recorded
    assert command == "flwr run . --run-config rounds=7"
    assert reproduce("/x/bin/recast simulate --seed 1", config) == (
        "recast simulate --seed 1",
        True,
    )


def test_what_python_ran_is_repeated_by_the_command_and_not_by_flower() -> None:
    config = Settings(rounds=7, residual=True, baseline=False).as_dict()
    more = {"bf16": None, "clients": 3, "data": {"a": "digest"}}
    command, recorded = reproduce("/x/ipykernel_launcher.py -f kernel.json", {**config, **more})
    assert not recorded
    assert command == "recast simulate --clients 3 --residual --rounds 7 --no-baseline"
    assert reproduce("serving.py", Settings().as_dict()) == ("recast serve", False)


def test_compared_rows_are_bytes_of_one_update(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"rows": [MEASURED, MEASURED | {"wire_up": None}]}))
    points = [(p["layer"], p["bytes"], p["accuracy"]) for p in read_points(path)]
    assert points == [("message", 60, 0.5), ("wire", 100, 0.5), ("message", 60, 0.5)]
    path.write_text(json.dumps([{"method": "full", "bytes": 4000, "accuracy": 97.4}]))
    (point,) = read_points(path)
    assert (point["layer"], point["bytes"]) == ("payload", 4000)
    assert point["accuracy"] == pytest.approx(0.974)


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[1]", "null", '{"rows": [{}]}', '[{"method": "x", "bytes": -1, "accuracy": 5}]',
        '[{"method": "x", "bytes": 1, "accuracy": 500}]', '[{"method": "x", "bytes": NaN}]',
        json.dumps([MEASURED | {"rounds": 0}]), "\\xff",
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_one_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(RecastError, match=re.escape(str(path))):
        read_points(path)


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(RecastError, match="no registry"):
            find_registry(missing)
    assert list(tmp_path.iterdir()) == []


def test_the_newest_run_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecastError, match="no run under"):
        find_registry(None)
    for name in ("b", "a"):
        Registry(Path("runs") / name / "registry.sqlite").close()
    os.utime("runs/b/registry.sqlite", (1, 1))
    assert find_registry(None) == Path("runs/a/registry.sqlite")


def test_a_client_that_announces_a_task_again_replaces_what_it_said(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {}, "again")
        registry.add_task(run, "t")
        registry.describe_task(run, 1, 2, {"7": (3, 1)})
        registry.describe_task(run, 1, 2, {"7": (5, 1), "8": (4, 1)})
        assert [share.train_examples for share in registry.shares(run)] == [5, 4]
        [task] = registry.tasks(run)
        assert (task.classes, task.examples, task.clients) == (2, 9, 2)


def test_without_the_plotting_library_the_error_is_one_line(
    large_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plotting_library.cache_clear()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(RecastError, match="pip install"):
        report(large_run, tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []
    report(large_run, page=False)


@pytest.mark.parametrize("last", [1, 2, 7, 8, 9, 100, 12345])
def test_an_axis_of_rounds_has_whole_numbers_each_once(last: int) -> None:
    ticks = whole_ticks(last)
    assert ticks[0] == 0
    assert ticks[-1] <= last
    assert 2 <= len(ticks) == len(set(ticks)) <= 9
