"""The study of tasks: rows that go on where they stopped, tables that say what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.data import load_dataset, parse_task, parse_tasks
from experiments.report.results import load_results
from experiments.studies import (
    tasks,
    tasks_banks,
    tasks_compare,
    tasks_statistics,
    tasks_table,
)
from experiments.studies.tasks import chosen, ordered
from experiments.studies.tasks_data import materialised
from experiments.studies.tasks_donors import drawn
from experiments.studies.tasks_entries import frontier, read
from experiments.studies.tasks_rows import BY_NAME, Terms, alone
from experiments.studies.tasks_statistics import ALWAYS, CHOSEN, local_heads, more_in_folds
from experiments.studies.trial import federation
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.shifts.table import family_of
from server.record.registry import Registry


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


def test_alone_a_client_of_one_class_is_left_out_of_a_task_as_in_a_federation(
    tmp_path: Path,
) -> None:
    task = tmp_path / "t.npz"
    whole = load_dataset(parse_task("digits@0-1"), 16)
    names = np.array(whole.classes)
    # Two writers: one has both digits, the other zeros alone.
    learn, judge = (np.flatnonzero(labels >= 0)[:40] for labels in (whole.y_train, whole.y_test))
    groups = [np.where((y == 0) & (np.arange(40) % 2 == 0), 1, 0) for y in (
        whole.y_train[learn], whole.y_test[judge]
    )]  # fmt: skip
    np.savez(
        task, x_train=whole.x_train[learn], y_train=whole.y_train[learn],
        x_test=whole.x_test[judge], y_test=whole.y_test[judge], classes=names,
        group_train=groups[0], group_test=groups[1],
    )  # fmt: skip
    terms = Terms("glyph_resnet20", "conv", 2, 1, 1, 16, "natural", {})
    found = alone(BY_NAME["alone, norm affine"], terms, [f"t=npz:{task}"], 0, 1.0)
    settings = terms.settings(BY_NAME["local head"], [f"t=npz:{task}"], 0, 1.0)
    with federation(settings, 2) as result, Registry(result.registry) as registry:
        [together] = registry.accuracies(result.run)
    assert found["examples"] == {"t": together.examples}
    assert together.examples == int((groups[1] == 0).sum()) < 40


def test_a_local_head_on_own_statistics_is_judged_as_a_federations_and_taken_where_folds_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks_ = [materialised("digits@0-4+impulse:5", 32, 60, tmp_path, validate=False, tests=60)]
    terms = Terms("glyph_resnet20", "conv", 2, 1, 1, 16, "dirichlet:0.5", {})
    settings = terms.settings(BY_NAME["local head"], tasks_, 0, 1.0)

    def right(statistics: str) -> float:
        [task] = local_heads(settings, tasks_, 2, statistics)["tasks"].values()
        return float(task["accuracy"])

    frozen, own = right(""), right(ALWAYS)
    with federation(settings, 2) as result, Registry(result.registry) as registry:
        [together] = registry.accuracies(result.run)
    assert frozen == together.accuracy
    assert own != frozen
    for say, taken in ((True, own), (False, frozen)):
        monkeypatch.setattr(tasks_statistics, "more_in_folds", lambda *_, say=say: say)
        assert right(CHOSEN) == taken


def test_folds_prefer_features_that_tell_the_classes_apart() -> None:
    labels = torch.arange(40) % 2
    random = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    telling = random + 9.0 * labels[:, None]
    assert more_in_folds(telling, random, labels)
    assert not more_in_folds(random, telling, labels)
    assert not more_in_folds(telling[:8], random[:8], labels[:8])


def test_other_rounds_are_other_rows_and_of_equal_rates_the_declared_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(*_: object) -> Any:
        task = {"accuracy": 0.5, "numbers": 1, "update_bytes": 1, "up": 1.0, "down": 1.0}
        return {"tasks": {"t": task}, "forgetting": 0.0, "bank_bytes": 0, "seconds": 0.0}

    monkeypatch.setattr(tasks, "federated", same)
    rows = tmp_path / "rows.jsonl"
    for rounds in ("1", "2", "2"):
        tasks.main(
            ["--only", "norm affine", "--tasks", "digits[:5%]@0-1", "--seeds", "1", "--rounds",
             rounds, "--rows", str(rows)]
        )  # fmt: skip
    made = [row for row in lines(rows) if "row" in row]
    assert [row["rounds"] for row in made] == [1, 2]
    assert {row["factor"] for row in made} == {1.0}
    assert len(read([rows])) == 2


def test_orders_and_training_alone_are_compared_seed_by_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(name: str, order: int, seed: int, a: float, b: float) -> str:
        told = {"a": {"accuracy": a}, "b": {"accuracy": b}}
        where = {"backbone": "n", "clients": 2, "images": 16, "sequence": "a=digits b=digits@0-4"}
        cell = {"row": name, "order": order, "seed": seed, "tasks": told, "forgetting": 0.0}
        return json.dumps({**cell, **where}) + "\n"

    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        row("x", 0, 0, 0.5, 0.8) + row("x", 1, 0, 0.6, 0.7)
        + row("x", 0, 1, 0.5, 0.8) + row("x", 1, 1, 0.6, 0.7)
        + row("alone, x", 0, 0, 0.4, 0.8) + row("alone, x", 0, 1, 0.6, 0.8)
    )  # fmt: skip
    tasks_compare.main([str(rows)])
    told = capsys.readouterr().out
    # Of "a" second 60 and first 50, of "b" second 80 and first 70.
    assert "| x | 65.0 | 65.0 | 0.0 | 0.0 | 0.0 | +10.0 |" in told
    assert "| 2 | 8 | x | 65.0 | 65.0 | +0.0 | -5.0 to +5.0 |" in told


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
         "--shapes", "2:2x2", "2:1x1", "--bits", "8", "-o", str(path)]
    )  # fmt: skip
    assert TemplateBank.load(tmp_path / "norms-2-1x1.safetensors").sent == 1
    bank = TemplateBank.load(tmp_path / "norms-2-2x2.safetensors")
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
    assert {ordered(sequence, order)[0] for order in range(4)} == set(sequence)
    assert sorted(ordered(sequence, 7)) == sequence


def test_a_shape_of_a_bank_is_refused_where_it_is_none_or_has_too_few_donors(
    tmp_path: Path,
) -> None:
    arguments = ["--donors", "digits@0-4", "-o", str(tmp_path / "b.safetensors"), "--shapes"]
    with pytest.raises(RecastError, match="write SOURCES:SECTIONSxDIRECTIONS"):
        tasks_banks.main([*arguments, "4x12"])
    with pytest.raises(RecastError, match="give more donors"):
        tasks_banks.main([*arguments, "2:1x1"])


def test_donors_are_drawn_as_class_subsets_half_of_them_shifted_by_no_family_held_out() -> None:
    [digits] = parse_tasks("digits[:5%]")
    few, many = (drawn([digits], count, 3, 16, 0, ["noise", "light"]) for count in (6, 12))
    assert many[:6] == few
    assert {tuple(np.diff(donor.class_range or ()) + 1) for donor in many} == {(3,)}
    assert len({donor.class_range for donor in many}) > 2
    assert [bool(donor.transforms) for donor in many] == [False, True] * 6
    families = {family_of(told.split(":")[0]) for donor in many for told in donor.transforms}
    assert families.isdisjoint({"noise", "light"})
    assert len({donor.name for donor in many}) == 12
    assert len(load_dataset(many[1], 16).y_train) > 0
    [ranged] = parse_tasks("digits@0-4")
    with pytest.raises(RecastError, match="leave the range out"):
        drawn([ranged], 1, 3, 16, 0)


def test_a_row_of_a_bank_is_there_once_for_each_of_its_files_and_told_apart_in_the_table(
    tmp_path: Path,
) -> None:
    rows, files = chosen(
        ["local head", "task directions"], ["tasks=a/x.safetensors", "tasks=y.safetensors"]
    )
    assert [row.bank for row in rows] == ["", "tasks:x", "tasks:y"]
    assert [Path(files[row.bank]).name for row in rows[1:]] == ["x.safetensors", "y.safetensors"]
    assert len({row.rate_of for row in rows}) == 3
    told = {"accuracy": 0.5, "numbers": 1, "update_bytes": 1, "up": 1, "down": 1}
    where = {"backbone": "b", "clients": 1, "images": 1, "forgetting": 0, "seconds": 1}
    cells = [{"row": "task directions", "bank": row.bank, "tasks": {"t": told}} for row in rows[1:]]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(cell | where) + "\n" for cell in cells))
    [entries] = read([path]).values()
    assert [entry.row for entry in entries] == ["task directions"] * 2
    assert len({entry.name for entry in entries}) == 2
    with pytest.raises(RecastError, match="give --banks tasks=FILE"):
        chosen(["task directions"], [])
    with pytest.raises(RecastError, match="write NAME=FILE"):
        chosen(None, ["x.safetensors"])


def test_an_unknown_row_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecastError, match="choose from local head"):
        tasks.main(["--only", "lora", "--rows", str(tmp_path / "rows.jsonl")])


def test_of_each_budget_the_best_is_told_with_its_rivals_and_what_narrower_numbers_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(name: str, numbers: int, size: int, accuracy: float) -> str:
        task = {"accuracy": accuracy, "numbers": numbers, "update_bytes": size, "up": 0, "down": 0}
        where = {"backbone": "n", "clients": 2, "images": 16, "sequence": "a=digits"}
        told = {"row": name, "order": 0, "seed": 0, "tasks": {"a": task}, "forgetting": 0.0}
        return json.dumps({**told, "seconds": 1.0, **where}) + "\n"

    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        row("local head", 0, 0, 0.5)
        + row("norm affine", 1376, 1398, 0.6) + row("norm affine, 1 bit", 1376, 194, 0.55)
        + row("own weights", 24, 44, 0.52) + row("own weights, 2 bits", 24, 26, 0.51)
        + row("own weights, 1 bit", 24, 23, 0.49) + row("LoRA r1, 1 bit", 4480, 582, 0.7)
    )  # fmt: skip
    tasks_table.main([str(rows)])
    told = capsys.readouterr().out
    assert "| 20 B | local head | 0 B | 50.0 | +0.0 | - | - |" in told
    assert "| 30 B | own weights, 2 bits | 26 B | 51.0 | +1.0 | - | - |" in told
    assert "| 200 B | norm affine, 1 bit | 194 B | 55.0 | +5.0 | - | 55.0 |" in told
    assert "| 2,000 B | LoRA r1, 1 bit | 582 B | 70.0 | +20.0 | 70.0 | 60.0 |" in told
    assert "| method | numbers | 8 bits | 2 bits | 1 bit |" in told
    assert "| own weights | 24 | 52.0 (44 B) | 51.0 (26 B) | 49.0 (23 B) |" in told
    assert "| norm affine | 1,376 |" not in told.split("8 bits | 2 bits")[1]
