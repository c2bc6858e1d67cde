"""Time folded training on one device: against one client at a time, and by number of clients.

No Flower here: this is ``recast_core.folded`` alone, on networks of random weights and images,
whose values change no timing.

Example: python -m experiments.studies.folded_speed --device cuda --json speed.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.studies.folded_bench import CLASSES, OBJECTIVE, Bench, Variant, networks
from experiments.studies.one_line import in_one_line
from recast_core.backbones import Preprocess
from recast_core.folded import Chunking, How, ImageStore, MethodFold, train
from recast_core.learner import Learner, method_learner


def one_by_one(bench: Bench, learner: Learner, count: int) -> tuple[float, Tensor]:
    """Seconds a client and coefficients of the first ``count``, one after another."""
    found = []
    start = learner.start.initial_vector.numpy()
    began = bench.now()
    for client in bench.clients(count):
        images = bench.pixels[client.rows]
        learned = learner.fit(start, images, client.labels, CLASSES, bench.recipe, client.seed)
        found.append(learned.vector)
    return (bench.now() - began) / count, torch.from_numpy(np.stack(found))


def method_ratio(
    name: str, method: str, device: torch.device, *, count: int, alone: int
) -> dict[str, Any]:
    """One row for another method: its clients one at a time, and together."""
    bench = Bench(name, device, images=64, batch=16)
    build, _, size = networks()[name]
    torch.manual_seed(0)
    learner = method_learner(method, build(), Preprocess(size), device)
    one_by_one(bench, learner, min(2, alone))
    reference, expected = one_by_one(bench, learner, alone)
    start = learner.start.initial_vector
    store = ImageStore(bench.pixels, Preprocess(size), None, device)
    store.ensure(torch.arange(len(store)))

    def together() -> tuple[float, Tensor]:
        began = bench.now()
        found = train(
            MethodFold(learner.model), store, bench.clients(count), OBJECTIVE, bench.recipe,
            start, How(Chunking(count)),
        )  # fmt: skip
        return (bench.now() - began) / count, found.coefficients

    together()
    seconds, found = min((together() for _ in range(2)), key=lambda run: run[0])
    off = float((found[:alone] - expected).norm() / (expected - start).norm())
    compared = _against(reference, seconds)
    row = _row(bench, method, count, seconds, chunk=count, relative_difference=off, **compared)
    print(row, flush=True)
    return row


def plain_product(bench: Bench, clients: int, dtype: torch.dtype) -> float | None:
    """TFLOP/s of a bare batched product of the first target layer's shape; ``None`` for convs."""
    shape = bench.bank.groups[0].shape
    if len(shape) != 2:
        return None
    tokens = 65 * bench.batch
    x = torch.randn(clients, tokens, shape[1], device=bench.device, dtype=dtype)
    w = torch.randn(clients, shape[1], shape[0], device=bench.device, dtype=dtype)
    for _ in range(3):
        torch.bmm(x, w)
    began, runs = bench.now(), 20
    for _ in range(runs):
        torch.bmm(x, w)
    return 2 * runs * x.numel() * shape[0] / (bench.now() - began) / 1e12


def ratios(
    name: str, device: torch.device, *, count: int, alone: int, variants: Sequence[str]
) -> list[dict[str, Any]]:
    """One row for one client at a time and one for each variant of folding."""
    bench = Bench(name, device, images=64, batch=16)
    one_by_one(bench, bench.learner, min(2, alone))
    reference, expected = one_by_one(bench, bench.learner, alone)
    operations = bench.operations(min(8, count)) if device.type == "cuda" else 0.0
    rows = [
        _row(
            bench, "alone", count, reference, chunk=0, relative_difference=0.0,
            **_against(reference, reference, operations),
        )
    ]  # fmt: skip
    for variant in variants:
        how = Variant.named(variant)
        bench.together(count, count, how)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds, found, chunking = min(
            (bench.together(count, count if device.type == "cuda" else 0, how)
             for _ in range(3)),
            key=lambda run: run[0],
        )  # fmt: skip
        start = bench.bank.initial_vector
        off = (found[:alone] - expected).norm() / (expected - start).norm()
        dtype = torch.bfloat16 if how.half else torch.float32
        row = _row(
            bench, variant, count, seconds, chunk=chunking.size or 0,
            relative_difference=float(off), plain_tflops=plain_product(bench, count, dtype),
            **_against(reference, seconds, operations),
        )  # fmt: skip
        rows.append(row)
        print(row, flush=True)
    return rows


def _row(bench: Bench, variant: str, clients: int, each: float, **more: Any) -> dict[str, Any]:
    return {
        "network": bench.name,
        "variant": variant,
        "clients": clients,
        "ms_per_client": 1e3 * each,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if bench.on_gpu else 0.0,
        **more,
    }


def _against(reference: float, seconds: float, operations: float = 0.0) -> dict[str, float]:
    """Of a client's seconds, against those of one that trains alone."""
    return {"times_faster": reference / seconds, "tflops": operations / seconds / 1e12}


def by_count(
    name: str, device: torch.device, counts: Sequence[int], half: bool, chunk: int = 0
) -> list[dict[str, Any]]:
    """Cost per client of rounds of growing size, 16 images and one step each."""
    bench = Bench(name, device, images=16, batch=16)
    bench.together(min(counts), chunk, Variant(half))
    rows = []
    for count in counts:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        seconds, _, chunking = bench.together(count, chunk, Variant(half))
        rows.append(
            _row(
                bench, "bf16" if half else "fp32", count, seconds, chunk=chunking.size,
                halved=chunking.halved, seconds=seconds * count,
            )
        )  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--count", type=int, default=128, help="clients trained together")
    parser.add_argument("--alone", type=int, default=8, help="clients timed one at a time")
    parser.add_argument("--network", nargs="+", default=["vit-d128x6"])
    parser.add_argument(
        "--variant", nargs="*", default=["fp32"], help="fp32 bf16 bf16+compile fp32+graph"
    )
    parser.add_argument("--method", nargs="*", default=[], help="lora:1:attn norm-affine")
    parser.add_argument("--counts", type=int, nargs="*", default=[], help="clients of a round")
    parser.add_argument("--chunks", type=int, nargs="*", default=[], help="sizes to compare")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device: str = given.device
    where = torch.device(device)
    torch.manual_seed(0)
    # Parity is a matter of float32: cuDNN would round the inputs of convolutions to TF32.
    torch.backends.cudnn.allow_tf32 = False
    found: dict[str, Any] = {"torch": torch.__version__, "device": device}
    if where.type == "cuda":
        found["device"] = torch.cuda.get_device_name()
    found["ratios"] = [
        row
        for name in given.network
        for row in ratios(name, where, count=given.count, alone=given.alone, variants=given.variant)
    ]
    found["methods"] = [
        method_ratio(name, method, where, count=given.count, alone=given.alone)
        for name in given.network
        for method in given.method
    ]
    half = any("bf16" in variant for variant in given.variant)
    if given.counts:
        found["by_count"] = by_count(given.network[0], where, given.counts, half)
    if given.chunks:
        found["by_chunk"] = [
            by_count(given.network[0], where, [given.count], half, size)[0] for size in given.chunks
        ]
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    in_one_line(main)
