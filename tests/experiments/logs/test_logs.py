"""Logs: what each library reads back of a run is what the registry has of it. All offline."""

from __future__ import annotations

import csv
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import recast
from experiments.logs.table import open_logs
from recast_core.settings import Settings

Tiny = Callable[..., Settings]


@pytest.fixture(scope="module")
def logged(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[recast.Run, Path]:
    folder = tmp_path_factory.mktemp("logs")
    settings = tiny(rounds=2, run_dir=str(folder / "run"))
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DIR", str(folder))
        patch.setenv("WANDB_SILENT", "true")
        patch.delenv("WANDB_MODE", raising=False)
        # Its own process may start late.
        for name in ("WANDB__SERVICE_WAIT", "WANDB_INIT_TIMEOUT"):
            patch.setenv(name, "600")
        run = recast.simulate(
            clients=2,
            log=[
                f"csv:{folder / 'log.csv'}",
                f"tensorboard:{folder / 'tb'}",
                f"mlflow:{folder / 'ml'}",
                "wandb:recast-test",
            ],
            **values,
        )
    return run, folder


def test_csv_has_a_row_for_each_round_and_task(logged: tuple[recast.Run, Path]) -> None:
    run, folder = logged
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rounds = [row for row in rows if row["event"] == "round"]
    assert [row["task"] for row in rounds] == list(run.history["task"])
    assert [int(row["bytes_up"]) for row in rounds][::2] == list(run.history["bytes_up"][::2])
    tasks = [row for row in rows if row["event"] == "task"]
    found = [float(row["accuracy"]) for row in tasks]
    assert found == pytest.approx(list(run.evaluations["accuracy"][:2]))


def test_a_second_run_is_appended_and_another_file_is_left_alone(
    logged: tuple[recast.Run, Path], tmp_path: Path
) -> None:
    _, folder = logged
    open_logs([f"csv:{folder / 'log.csv'}"])
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(recast.RecastError, match="is no log of recast: name another file"):
        open_logs([f"csv:{other}"])
    assert other.read_text() == "a,b\n1,2\n"


def test_tensorboard_reads_the_scalars(logged: tuple[recast.Run, Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, folder = logged
    events = EventAccumulator(str(folder / "tb" / "run-1"))
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    assert [event.step for event in scalars["b/updates"]] == [3, 4]
    assert scalars["a/bytes_up"][0].value == run.history["bytes_up"][0]
    assert [event.value for event in scalars["a/examples"]] == list(run.history["examples"][:2])
    accuracy = scalars["tasks/a/accuracy"][0].value
    assert accuracy == pytest.approx(run.evaluations["accuracy"][0])
    assert "a/coefficients" in events.Tags()["histograms"]


def test_mlflow_reads_metrics_and_settings(logged: tuple[recast.Run, Path]) -> None:
    from mlflow import MlflowClient

    run, folder = logged
    client = MlflowClient(f"sqlite:///{folder / 'ml' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("recast")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["rounds"] == "2"
    history = client.get_metric_history(found.info.run_id, "b/bytes_up")
    assert [entry.step for entry in history] == [3, 4]
    assert history[0].value == run.history["bytes_up"][2]


def records(path: Path) -> Iterator[bytes]:
    """The records of wandb's file: LevelDB's log format after a header of 7 bytes."""
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb_wrote_a_run_that_can_be_synchronised(logged: tuple[recast.Run, Path]) -> None:
    from wandb.proto import wandb_internal_pb2

    run, folder = logged
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = dict[str, list[str]]()
    for data in records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.history.item:
            found.setdefault(item.key or ".".join(item.nested_key), []).append(item.value_json)
    assert [float(value) for value in found["a/examples"]] == list(run.history["examples"][:2])
    assert float(found["tasks/b/accuracy"][0]) == pytest.approx(run.evaluations["accuracy"][1])


def test_a_log_that_fails_is_warned_of_once_and_the_run_goes_on(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(recast.Callback):
        def __init__(self, where: str) -> None:
            self.closed = False

        def round_finished(self, event: recast.RoundFinished) -> None:
            raise OSError("no space left on device")

    recast.register_log("broken", Broken)
    settings = tiny(rounds=2, run_dir=str(tmp_path / "run"))
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    assert recast.simulate(clients=2, log="broken:here", **values).status == "finished"
    warnings = [record for record in caplog.records if record.name == "recast.logs"]
    assert [record.getMessage() for record in warnings] == [
        "log broken:here failed and is left out from now on: OSError: no space left on device"
    ]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_library_that_is_missing_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[f"experiments.logs.{name}_log"]
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(recast.RecastError, match=f"pip install 'recast-fl\\[{name}\\]'"):
        open_logs([f"{name}:x"])


def test_the_command_takes_several_logs(
    request: pytest.FixtureRequest,
    tiny: Tiny,
    tmp_path: Path,
    command_line: Callable[[Settings], list[str]],
) -> None:
    command = request.getfixturevalue("recast")
    options = command_line(tiny(run_dir=str(tmp_path / "run")))
    logs = ["--log", f"csv:{tmp_path / 'a.csv'}", "--log", f"csv:{tmp_path / 'b.csv'}"]
    done = command("simulate", "--clients", "2", *logs, *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    done = command("simulate", "--log", "csv", *options)
    assert (done.returncode, done.stderr) == (
        2, "recast: log 'csv' does not say where: give csv:WHERE\n",
    )  # fmt: skip
