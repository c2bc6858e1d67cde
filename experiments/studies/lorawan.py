"""A whole task over LoRaWAN: ``python -m experiments.studies.lorawan --devices 4 --rounds 6``.

The product's ServerApp and ClientApp, the bridge, a real broker (Mosquitto) and a simulated network
(``lorawan_network``). One line of JSON is printed: accuracies, frames, bytes, seconds on the air,
and the days that the task takes by the model's clock and by the duty cycles alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from client.app import app
from client.data import known_classes
from client.link import LocalApp
from client.lorawan import Device, application
from experiments.measure.mosquitto import Mosquitto
from experiments.measure.processes import Processes
from experiments.measure.relay import free_port
from experiments.measure.share import deal
from experiments.report.summary import summarise
from experiments.studies.lorawan_network import Loss, Network
from protos.mqtt import BrokerUrl
from recast_core.setting_values import Value
from recast_core.settings import Settings
from recast_core.start import Start
from recast_core.task_spec import parse_tasks
from server.app import Conditions, RunResult, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.lorawan import LoraGrid
from server.mqtt.grid import BrokerAccess
from server.prepare import keep_bank, make_start

APPLICATION = "recast"
DAY = 86_400.0


def devices_of(settings: Settings, start: Start, count: int, folder: Path) -> dict[str, Device]:
    """Devices with their share of the task's images and the bank's file, by EUI."""
    (task,) = parse_tasks(settings.tasks)
    made = {}
    for index, data in enumerate(deal(settings, count, folder / "data")):
        cache = folder / "caches" / str(index)
        cache.mkdir(parents=True)
        keep_bank(start, cache)
        (bank,) = cache.glob("bank-*.safetensors")
        bank.rename(cache / f"{start.sha256.hex()}.safetensors")
        config: dict[str, Value] = {
            "data-dir": str(data),
            "cache-dir": str(cache),
            "client-number": index,
        }
        answer = application(LocalApp(app, config, cache), settings.as_dict())
        made[f"{index:016x}"] = Device(
            answer, start.sha256, coefficients=start.sent, task=(1, task.name)
        )
    return made


def whole_task(
    settings: Settings, count: int, loss: Loss, seed: int, folder: Path
) -> dict[str, Any]:
    """Learn the one task of the settings with so many devices; what it took."""
    start = make_start(settings)
    done: list[RunResult | BaseException] = []
    with ExitStack() as stack:
        stack.enter_context(server_identity())
        port = free_port()
        processes = stack.enter_context(Processes(folder / "logs", {}))
        Mosquitto(folder / "broker", processes, port, secure=False).start()
        devices = devices_of(settings, start, count, folder)
        network = Network(port, APPLICATION, devices, loss, seed)
        stack.callback(network.close)
        access = BrokerAccess(BrokerUrl.parse(f"mqtt://127.0.0.1:{port}/{APPLICATION}"), "serve")
        grid = stack.enter_context(
            LoraGrid(APPLICATION, partial(access.broker, None), clock=lambda: network.now)
        )

        def learn() -> None:
            try:
                grid.wait_for_clients(count)
                conditions = Conditions(classes_of=known_classes)
                done.append(
                    run_federation(
                        grid, settings, folder / "run", LogObserver(), conditions=conditions
                    )
                )
            except BaseException as error:
                done.append(error)

        threading.Thread(target=learn, daemon=True).start()
        network.run(
            lambda: grid.heard,
            lambda: grid.asking + count - len(grid.names()),
            lambda: bool(done),
        )
        if isinstance(done[0], BaseException):
            raise done[0]
        result = done[0]
    report = summarise(result, "lorawan", settings.seed, 0.0)
    (task,) = report["tasks"]
    return {
        "devices": count,
        "rounds": settings.rounds,
        "coefficients": start.sent,
        "bits": settings.width(start.sent),
        "days": round(network.now / DAY, 3),
        "longest_frame": max(device.longest for device in devices.values()),
        "sent_up": sum(device.duty.frames for device in devices.values()),
        "airtime_of_a_device": round(max(d.duty.seconds for d in devices.values()), 1),
        "lost": network.lost,
        **report["lorawan"],
        "accuracy": task["accuracy"],
        "deployed_accuracy": task.get("deployed_accuracy"),
        "zero_byte_accuracy": task.get("zero_byte_accuracy"),
    }


def main() -> int:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--task", default="impulse=digits[50%:]+impulse:4")
    parser.add_argument("--loss", type=float, default=0.1, help="share of frames, each way")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="recast-lorawan-") as folder:
        settings = Settings(
            tasks=given.task,
            rounds=given.rounds,
            epochs=given.epochs,
            device="cpu",
            seed=given.seed,
            run_dir=str(Path(folder) / "run"),
        )
        loss = Loss(given.loss, given.loss)
        found = whole_task(settings, given.devices, loss, given.seed, Path(folder))
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
