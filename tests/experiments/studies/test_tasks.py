"""The study of tasks: rows that go on where they stopped, tables that say what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.data import load_dataset, parse_task
from experiments.report.results import load_results
from experiments.studies import tasks, tasks_banks, tasks_table
from experiments.studies.tasks import ordered
from experiments.studies.tasks_data import materialised
from experiments.studies.tasks_table import frontier, read
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_quick_study_goes_on_where_it_stopped_and_its_table_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    arguments = ["--quick", "--tasks", "digits@0-2", "--rows", str(rows)]
    tasks.main(arguments)
    made = rows.read_text()
    assert [row["row"] for row in lines(rows) if "row" in row] == [
        "local head", "TinyLoRA 12 x 4", "norm groups 1"
    ]  # fmt: skip
    tasks.main(arguments)
    assert rows.read_text() == made
    capsys.readouterr()
    page, plot, results = (tmp_path / name for name in ("page.md", "plot.svg", "results.json"))
    tasks_table.main(
        [str(rows), "--page", str(page), "--plot", str(plot), "--results", str(results),
         "--backbone", "glyph_resnet20"]
    )  # fmt: skip
    assert "| TinyLoRA 12 x 4 | 48 |" in page.read_text().replace("**", "")
    assert plot.read_text().startswith("<svg")
    found = {row.method: row for row in load_results(results)}
    sent = found["tiny-lora:12:4:conv"]
    assert sent.numbers == 48
    assert sent.update_bytes == lines(rows)[2]["tasks"]["digits-0-2"]["update_bytes"] > 48
    free = found["head-only"]
    assert free.gain == 0
    assert sent.zero_byte_accuracy == free.accuracy


def test_alone_sends_nothing_and_weighs_clients_by_their_test_images(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    tasks.main(
        ["--only", "alone, norm affine", "local head", "--tasks", "digits@0-2", "--clients", "2",
         "--images", "60", "--rounds", "1", "--epochs", "1", "--seeds", "1", "--rows", str(rows)]
    )  # fmt: skip
    by = {row["row"]: row["tasks"]["digits-0-2"] for row in lines(rows) if "row" in row}
    assert by["alone, norm affine"]["update_bytes"] == by["alone, norm affine"]["up"] == 0
    assert 0.5 < by["alone, norm affine"]["accuracy"] <= 1


def test_validation_images_are_training_images_and_are_not_learned_from(tmp_path: Path) -> None:
    whole = load_dataset(parse_task("digits@0-4"), 32)
    found = {}
    for validate in (False, True):
        spec = materialised("digits@0-4", 32, 200, tmp_path, validate=validate)
        found[validate] = load_dataset(parse_task(spec), 32)

    def seen(images: np.ndarray) -> set[bytes]:
        return {image.tobytes() for image in images}

    tests = seen(whole.x_test)
    assert seen(found[False].x_test) <= tests
    assert not seen(found[True].x_test) & tests
    assert not seen(found[True].x_test) & seen(found[True].x_train)
    assert seen(found[True].x_train) | seen(found[True].x_test) == seen(found[False].x_train)


def test_a_bank_of_norm_directions_moves_norms_alone_and_is_small(tmp_path: Path) -> None:
    path = tmp_path / "norms.safetensors"
    tasks_banks.main(
        ["--donors", "digits[:5%]@0-4 digits[:5%]@5-9", "--move", "norms", "--epochs", "1",
         "--sections", "2", "--directions", "2", "--bits", "8", "-o", str(path)]
    )  # fmt: skip
    bank = TemplateBank.load(path)
    assert bank.sent == 4
    assert {group.tensor for group in bank.groups} == {"weight", "bias"}
    assert all(len(group.shape) == 1 for group in bank.groups)
    assert len(bank.to_bytes()) < 20_000


def test_a_frontier_keeps_what_nothing_beats_with_as_few_bytes(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"

    def row(name: str, sent: int, accuracy: float) -> str:
        told = {"accuracy": accuracy, "numbers": sent, "update_bytes": sent, "up": 0, "down": 0}
        where = {"backbone": "b", "clients": 1, "images": 1}
        cell = {"row": name, "tasks": {"t": told}, "forgetting": 0, "seconds": 1, **where}
        return json.dumps(cell) + "\n"

    rows.write_text(row("c", 9, 0.5) + row("a", 0, 0.4) + row("d", 99, 0.6) + row("b", 10, 0.45))
    [entries] = read([rows]).values()
    assert [entry.name for entry in frontier(entries)] == ["a", "c", "d"]


def test_orders_are_permutations_that_the_number_decides() -> None:
    sequence = ["a", "b", "c", "d"]
    assert ordered(sequence, 0) == sequence
    assert sorted(ordered(sequence, 1)) == sequence
    assert ordered(sequence, 1) == ordered(sequence, 1) != ordered(sequence, 2)


def test_an_unknown_row_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecastError, match="choose from local head"):
        tasks.main(["--only", "lora", "--rows", str(tmp_path / "rows.jsonl")])
