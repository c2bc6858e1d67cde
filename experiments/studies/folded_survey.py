"""What a GPU makes of folded training, in three minutes: ratios, few clients, and where time goes.

Rows in the order of their worth until the time is up; each says what it compares with. It needs
neither Flower nor data.

Example: python -m experiments.studies.folded_survey --device cuda --limit 170 --json survey.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from experiments.studies.folded_bench import Bench, Variant
from experiments.studies.folded_speed import one_by_one, plain_product
from experiments.studies.one_line import in_one_line

_CLIENTS, _ALONE = 128, 6
_TOP = 14
Row = dict[str, Any]


def rows(device: torch.device) -> Iterator[Callable[[], Row]]:
    """Measurements, the most wanted first; each a function, so that one that fails is one row."""
    vit = _Against("vit-d128x6", device)
    for variant in ("fp32", "fp32+graph", "fp32+compile"):
        yield vit.row(_CLIENTS, variant)
    yield vit.kernels("fp32")
    yield vit.row(_CLIENTS, "bf16+compile")
    yield vit.row(_CLIENTS, "bf16+compile+graph")
    yield vit.kernels("bf16+compile")
    for count in (8, 20):
        yield vit.row(count, "fp32")
        yield vit.row(count, "fp32+graph")
    vit.forget()
    net = _Against("resnet20", device)
    for count in (8, 20, _CLIENTS):
        yield net.row(count, "fp32")
        yield net.row(count, "fp32+graph")
    yield net.row(_CLIENTS, "bf16+compile+graph")
    net.forget()
    small = _Against("vit-small", device)
    for variant in ("fp32", "bf16", "bf16+compile", "bf16+compile+graph"):
        yield small.row(_CLIENTS, variant)
    yield small.kernels("bf16+compile")


class _Against:
    """Rows of one network, beside its clients one at a time."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        self._bench: Bench | None = None
        self._reference = 0.0

    def row(self, count: int, variant: str) -> Callable[[], Row]:
        """So many clients at once: how many times faster than alone, and how far from that."""

        def measure() -> Row:
            bench = self._ready()
            how = Variant.named(variant)
            bench.together(count, count, how)
            seconds, found, _ = min(
                (bench.together(count, count, how) for _ in range(3)), key=lambda run: run[0]
            )
            moved = (self._expected - bench.bank.initial_vector).norm()
            few = min(count, len(self._expected))
            off = (found[:few] - self._expected[:few]).norm() / moved
            dtype = torch.bfloat16 if how.half else torch.float32
            return {
                "network": self.name, "clients": count, "variant": variant,
                "ms_per_client": 1e3 * seconds, "alone_ms": 1e3 * self._reference,
                "times_faster": self._reference / seconds,
                "tflops": self._operations / seconds / 1e12,
                "plain_tflops": plain_product(bench, count, dtype) if count == _CLIENTS else None,
                "relative_difference": float(off),
            }  # fmt: skip

        return measure

    def kernels(self, variant: str) -> Callable[[], Row]:
        """Where the device's time goes: the largest kernels in ms of one training."""

        def measure() -> Row:
            bench, how = self._ready(), Variant.named(variant)
            bench.together(_CLIENTS, _CLIENTS, how)
            kinds = [ProfilerActivity.CPU]
            if self.device.type == "cuda":
                kinds.append(ProfilerActivity.CUDA)
            with profile(activities=kinds) as seen:
                bench.together(_CLIENTS, _CLIENTS, how)
            spent = {event.key: _microseconds(event) / 1e3 for event in seen.key_averages()}
            top = sorted(spent.items(), key=lambda item: -item[1])[:_TOP]
            return {
                "network": self.name, "variant": variant, "all_ms": sum(spent.values()),
                "kernels_ms": {name[:110]: round(ms, 3) for name, ms in top},
            }  # fmt: skip

        return measure

    def forget(self) -> None:
        """Let its memory go."""
        self._bench = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _ready(self) -> Bench:
        if self._bench is None:
            self._bench = bench = Bench(self.name, self.device, images=64, batch=16)
            one_by_one(bench, bench.learner, 2)
            self._reference, self._expected = one_by_one(bench, bench.learner, _ALONE)
            cuda = self.device.type == "cuda"
            self._operations = bench.operations(8) if cuda else 0.0
        return self._bench


def _microseconds(event: Any) -> float:
    """Of a kernel on the device; of an operation's own where there is none."""
    if event.device_type is not None and "CUDA" in str(event.device_type):
        return float(event.self_device_time_total)
    return 0.0 if torch.cuda.is_available() else float(event.self_cpu_time_total)


def survey(device: torch.device, limit: float) -> list[Row]:
    """The rows that ``limit`` seconds are enough for; one that fails says why."""
    began, found = time.monotonic(), []
    for measure in rows(device):
        if time.monotonic() - began > limit:
            found.append({"error": f"{limit:g} s were not enough for the rest"})
            print(found[-1], flush=True)
            break
        try:
            row = measure()
        except RuntimeError as error:
            row = {"error": str(error).splitlines()[0][:300]}
        row["at"] = round(time.monotonic() - began, 1)
        found.append(row)
        print(json.dumps(row), flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", type=float, default=170.0, help="seconds")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device = torch.device(given.device)
    # Parity is a matter of float32: cuDNN would round the inputs of convolutions to TF32.
    torch.backends.cudnn.allow_tf32 = False
    name = torch.cuda.get_device_name() if device.type == "cuda" else str(device)
    print(json.dumps({"torch": torch.__version__, "device": name}), flush=True)
    found = {"torch": torch.__version__, "device": name, "rows": survey(device, given.limit)}
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    in_one_line(main)
