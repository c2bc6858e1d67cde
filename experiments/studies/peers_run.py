"""One simulator in a process of its own: ``python -m experiments.studies.peers_run SYSTEM ...``.

A line of the output is the seconds of each round, and the accuracy at the end, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.studies.peers_client import Case, Clock, Local
from recast_core.wire.codec import Vector

# Seconds, the accuracy at the end, and that of each round where images are kept aside for it.
Found = tuple[Clock, float | None, list[float]]


def ours(case: Case, engine: str) -> Found:
    """The folded engine, or Flower's on Ray: a round ends when it is averaged and recorded."""
    from flwr.serverapp import Grid

    from client.app import app as client_app
    from experiments.engines.folded import FoldedGrid
    from experiments.engines.ray import run_on_ray
    from server.app import run_federation
    from server.exchange.observer import LogObserver
    from server.flower import server_identity
    from server.record.place import REGISTRY
    from server.record.registry import Registry

    class Watch(LogObserver):
        """Keeps seconds and the accuracy."""

        def __init__(self) -> None:
            self.clock = Clock()
            self.accuracy: float | None = None

        def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
            """Start the clock."""
            self.clock.begin()

        def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
            """Note how long it took, if all took part."""
            if updates < 0.99 * case.clients:
                raise SystemExit(f"{case.clients - updates} clients had no part in round {round_}")
            self.clock.end(seconds)

        def evaluated(
            self, task: str, accuracy: float, without: float | None, clients: int
        ) -> None:
            """Note it."""
            self.accuracy = accuracy

    watch, run_dir = Watch(), case.folder / f"run-{os.getpid()}"
    settings = case.settings(run_dir)

    def federation(grid: Grid) -> None:
        run_federation(grid, settings, run_dir, watch)

    if engine == "ray":
        run_on_ray(federation, client_app, case.clients, settings, case.folder / "caches")
    else:
        with server_identity(), ExitStack() as stack:
            federation(stack.enter_context(FoldedGrid(case.clients, settings)))
    curve: list[float] = []
    if case.watched:
        local = Local(case)
        with Registry(run_dir / REGISTRY) as registry:
            vectors = [registry.coefficients(1, 1, row.round) for row in registry.rounds(1, 1)]
        curve = local.curve(vectors, local.data(case))
    return watch.clock, None if case.light else watch.accuracy, curve


def pfl(case: Case, kind: str) -> Found:
    """Pfl's SimulatedBackend, in each of torchrun's workers, which answer each."""
    os.environ["PFL_PYTORCH_DEVICE"] = "cpu"
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import MinimizeReuseUserSampler
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.internal.ops import pytorch_ops
    from pfl.metrics import Metrics, Weighted
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)
    np.random.seed(0)  # what pfl draws from
    local, clock = Local(case), Clock()
    vectors: list[Vector] = []
    held, flat = local.data(case), local.net.coefficients.flat
    given = local.pixels(held["x_train"]) if kind == "plain" else held["x_train"]

    class Net(torch.nn.Module):
        """As pfl wants a model."""

        def __init__(self) -> None:
            super().__init__()
            self.net = local.net

        def loss(self, x: Tensor, y: Tensor) -> Tensor:
            """What a user's training loop lowers."""
            return torch.nn.functional.cross_entropy(local.logits(x), y)

        def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
            """For an evaluation, of which there is none."""
            return {"loss": Weighted(float(self.loss(x, y)), len(y))}

    def make(user: int) -> Any:
        mine = slice(user * case.images, (user + 1) * case.images)
        return Dataset((given[mine], held["y_train"][mine]), user_id=user)

    class Own(FederatedAveraging):  # type: ignore[misc]
        """Local training is recast's function for one client."""

        def train_one_user(self, initial: Any, model: Any, dataset: Any, context: Any) -> Any:
            """See pfl."""
            images, labels = dataset.raw_data
            found = local.own(flat.detach().numpy().copy(), images, labels, dataset.user_id)
            flat.data.copy_(torch.from_numpy(found))
            return model.get_model_difference(initial), Metrics()

    class Rounds(TrainingProcessCallback):  # type: ignore[misc]
        """Stops the clock after each central iteration."""

        def on_train_begin(self, *, model: Any) -> Any:
            """See pfl."""
            clock.begin()
            return Metrics()

        def after_central_iteration(
            self, metrics: Any, model: Any, *, central_iteration: int
        ) -> tuple[bool, Any]:
            """See pfl."""
            clock.end()
            vectors.append(flat.detach().numpy().copy())
            clock.begin()
            return False, Metrics()

    model = PyTorchModel(
        Net(),
        lambda parameters, lr: torch.optim.AdamW([flat], lr=lr, weight_decay=0.0),
        torch.optim.SGD([flat], lr=1.0),
    )
    everyone = FederatedDataset(make, MinimizeReuseUserSampler(list(range(case.clients))))
    backend = SimulatedBackend(everyone, everyone)
    algorithm = Own() if kind == "own" else FederatedAveraging()
    algorithm._current_central_iteration = 1  # no evaluation before the first round, as with us
    algorithm.run(
        NNAlgorithmParams(
            central_num_iterations=case.rounds + 1, evaluation_frequency=10**6,
            train_cohort_size=case.clients, val_cohort_size=0,
        ),
        backend, model,
        NNTrainHyperParams(
            local_num_epochs=local.recipe.epochs,
            local_learning_rate=local.recipe.learning_rate,
            local_batch_size=local.recipe.batch,
        ),
        callbacks=[Rounds()],
    )  # fmt: skip
    if pytorch_ops.distributed.global_rank != 0:
        return clock, None, []
    right = _accuracy(case, local, flat.detach().numpy().copy(), held)
    return clock, right, local.curve(vectors, held)


def blazefl(case: Case, kind: str) -> Found:
    """BlazeFL's pool of two threads, each with a model of its own."""
    from blazefl.core import ThreadPoolClientTrainer

    torch.set_num_threads(1)
    first, own, clock = Local(case), threading.local(), Clock()
    held = first.data(case)
    given = first.pixels(held["x_train"]) if kind == "plain" else held["x_train"]

    class Trainer(ThreadPoolClientTrainer):  # type: ignore[misc]
        """See BlazeFL."""

        def __init__(self) -> None:
            self.num_parallels, self.device, self.device_count = 2, "cpu", 0
            self.cache: list[np.ndarray[Any, Any]] = []
            self.stop_event = threading.Event()

        def worker(self, cid: int, device: str, payload: Any, stop_event: Any) -> Any:
            """One client."""
            if not hasattr(own, "local"):
                torch.set_num_threads(1)
                own.local = Local(case)
            mine = slice(cid * case.images, (cid + 1) * case.images)
            x, y = given[mine], held["y_train"][mine]
            if kind == "own":
                return own.local.own(payload, x, y, cid)
            loader = torch.utils.data.DataLoader(
                torch.utils.data.TensorDataset(x, y), batch_size=first.recipe.batch, shuffle=True,
                generator=torch.Generator().manual_seed(cid),
            )  # fmt: skip
            return own.local.plain(payload, lambda: loader)

        def uplink_package(self) -> Any:
            """What all clients answered."""
            answers, self.cache = self.cache, []
            return answers

    trainer, vector = Trainer(), first.start
    vectors: list[Vector] = []
    for _ in range(case.rounds):
        clock.begin()
        trainer.local_process(vector.copy(), list(range(case.clients)))
        vector = np.stack(trainer.uplink_package()).astype(np.float64).mean(0).astype(np.float32)
        clock.end()
        vectors.append(vector)
    return clock, _accuracy(case, first, vector, held), first.curve(vectors, held)


def _accuracy(case: Case, local: Local, vector: Any, held: dict[str, Tensor]) -> float | None:
    return None if case.light else local.accuracy(vector, held["x_test"], held["y_test"])


def main() -> None:
    """Run one simulator and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("system", choices=("folded", "ray", "pfl", "blazefl"))
    parser.add_argument("kind", choices=("own", "plain"))
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--passes", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--watched", action="store_true")
    given = parser.parse_args()
    case = Case(
        given.clients, given.light, given.rounds, given.folder,
        given.passes, given.rate, given.watched,
    )  # fmt: skip
    with redirect_stdout(sys.stderr):
        if given.system == "pfl":
            found = pfl(case, given.kind)
        elif given.system == "blazefl":
            found = blazefl(case, given.kind)
        else:
            found = ours(case, given.system)
    clock, accuracy, curve = found
    told = {"rounds": clock.rounds, "cpu": clock.cpu, "accuracy": accuracy, "curve": curve}
    # In one piece: workers share what they write to.
    os.write(1, (json.dumps(told) + "\n").encode())
    os._exit(0)  # Ray and Flower leave threads that would keep the process waiting


if __name__ == "__main__":
    main()
