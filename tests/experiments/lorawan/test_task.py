"""A whole task over LoRaWAN: a real broker, ChirpStack's events, a network that loses frames."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.command.cli import main
from experiments.measure.mosquitto import program
from experiments.report import report
from experiments.report.data import report_data
from experiments.studies.lorawan import whole_task
from experiments.studies.lorawan_network import Loss
from recast_core.settings import Settings
from server.lorawan.chirpstack import Chirpstack, Uplink
from server.record.air import account, air_of
from server.record.registry import Registry
from server.record.rows import Air


@pytest.mark.skipif(program() is None, reason="no mosquitto: `apt-get install mosquitto`")
def test_a_task_is_learned_though_frames_are_lost_and_no_frame_is_longer_than_51_bytes(
    tiny: Callable[..., Settings], tmp_path: Path
) -> None:
    one_task = tiny().tasks.split()[0]
    settings = tiny(rounds=2, tasks=one_task, head="local", run_dir=str(tmp_path / "run"))
    found = whole_task(settings, 2, Loss(0.2, 0.2), 1, tmp_path)
    assert found["longest_frame"] <= 51
    assert found["frames_up"] <= found["sent_up"]
    # The last frame's silence is yet to come, and days are told to a thousandth.
    assert (found["airtime_of_a_device"] - 4) / (found["days"] * 86_400) <= 0.01
    with Registry(tmp_path / "run" / "registry.sqlite") as registry:
        assert [run.status for run in registry.runs()] == ["finished"]
        rounds = registry.rounds(1, 1)
        assert [entry.round for entry in rounds] == [1, 2]
        told = report_data(registry.path)["lorawan"]
        assert told == {name: found[name] for name in told}
        assert (told["devices"], told["frames_up"] > told["frames_down"] > 4) == (2, True)
        before = air_of(registry, 1)
        more = Air(before[0].client, before[0].direction, 3, 100, 2.5)
        registry.record_air(1, [more, Air("9", "down", 1, 11, 1.25)])
        assert account(air_of(registry, 1))["bytes_down"] == told["bytes_down"] + 11 + (
            100 if more.direction == "down" else 0
        )
    page = tmp_path / "report.html"
    report(tmp_path / "run", page)
    assert "heard from 2 devices" in page.read_text()


def heard(payload: bytes, event: str = "up", device: str = "00" * 8) -> list[Any]:
    found: list[Any] = []
    stack = Chirpstack("app", lambda heard, lost: None, found.append, found.append)  # type: ignore[arg-type,return-value]
    stack._heard(f"application/app/device/{device}/event/{event}", payload)
    return found


def test_events_of_chirpstack_are_read_as_it_documents_them() -> None:
    event = {
        "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
        "time": "2022-07-18T09:34:15.775023242+00:00",
        "deviceInfo": {"applicationId": "app", "devEui": "00" * 8, "deviceName": "edge"},
        "devAddr": "00189440",
        "dr": 1,
        "fPort": 10,
        "data": base64.b64encode(b"frame").decode(),
        "rxInfo": [{"gatewayId": "0016c001f153a14c", "rssi": -48, "snr": 9}],
    }
    assert heard(json.dumps(event).encode()) == [Uplink("00" * 8, 1, b"frame")]
    assert heard(json.dumps(event | {"fPort": 2}).encode()) == []
    assert heard(b"{}", "txack") == ["00" * 8]
    for bad in (b"", b"[]", b"\xff", b'{"data": "?", "fPort": 10}', b"7"):
        assert heard(bad) == []
    assert heard(json.dumps(event).encode(), device="recast") == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--bits", "16"], "--bits 16 does not fit a frame: give 0, or 5"),
        (["--head", "ridge"], "no room for this --head: give backbone, or local"),
        (["--error-feedback"], "no room for this --error-feedback: give no"),
        (["--web", "127.0.0.1:1"], "--lorawan has no --web: leave it out"),
    ],
)
def test_what_does_not_go_over_lorawan_is_one_line(
    more: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["recast", "serve", "--lorawan", "mqtt://localhost:1/app", *more]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "lorawan" in one]
    assert said in line
