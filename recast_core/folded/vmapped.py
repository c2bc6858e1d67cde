"""Many clients of another method as one batch: ``torch.func`` gives each its own weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from recast_core.fitting import check_labels
from recast_core.folded.adamw import adamw_step
from recast_core.folded.chunks import Chunking, choose, in_chunks
from recast_core.folded.images import ImageStore
from recast_core.folded.objective import folded_loss
from recast_core.folded.schedule import FoldedClient, Step, schedule
from recast_core.folded.train import Trained
from recast_core.methods import MethodModel

# A client's own copy of every weight leaves nothing to share: full fine-tuning does not fold.
FOLDABLE = ("norm-affine", "lora")


class _Features(nn.Module):
    def __init__(self, model: MethodModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.features(images)


def train_method(
    model: MethodModel,
    store: ImageStore,
    clients: Sequence[FoldedClient],
    classes: int,
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    start: Tensor,
    chunking: Chunking | None = None,
    finished: Callable[[int], None] = lambda count: None,
) -> Trained:
    """Train every client's parameters by AdamW on the split-ridge loss.

    Each client gets the batches, steps and moments that ``recast_core.methods.train`` gives it
    alone; in float32 the vectors agree to 1e-5, for one of ``FOLDABLE``.

    Args:
        model: prepared; left with parameters of no meaning.
        store: the images, prepared by the backbone's own preprocessing.
        clients: J shares of the store.
        classes: of the task.
        epochs: passes over each client's images.
        batch: images per step of a client.
        learning_rate: of the parameters.
        start: the sent vector ``[D]`` that every client starts from.
        chunking: keeps the chosen size between calls; give ``size`` to choose it.
        finished: called after each chunk with its number of clients.

    Raises:
        RecastError: a client that has no images or one class only, or that does not fit into
            memory alone.
    """
    for client in clients:
        check_labels(client.labels, classes)
    device = store.images.device
    store.ensure(torch.cat([client.rows for client in clients]))
    result = Trained(
        torch.empty(len(clients), model.sent_count),
        torch.empty(len(clients)),
        torch.zeros(len(clients), dtype=torch.bool),
    )
    order = sorted(range(len(clients)), key=lambda i: (-clients[i].steps(batch), i))

    def run(chunk: Sequence[int], only: int | None = None) -> tuple[Tensor, Tensor]:
        model.load_vector(start.to(device))
        steps = schedule([clients[i] for i in chunk], epochs, batch, learning_rate).to(device)
        return _train_chunk(model, store, steps.steps(), len(chunk), only)

    def work(chunk: Sequence[int]) -> None:
        where = torch.tensor(chunk)
        result.coefficients[where], result.losses[where] = run(chunk)
        result.finite[where] = torch.isfinite(result.coefficients[where]).all(1)
        finished(len(chunk))

    chunking = chunking or Chunking()
    if chunking.size is None and device.type == "cuda":
        rows = max(min(batch, len(client.labels)) for client in clients)

        def probe(count: int) -> None:
            run(order[:count], only=1)

        chunking.size = choose(device, rows, len(clients), probe)
    chunking.size = chunking.size or 1
    in_chunks(order, chunking, work)
    return result


def _train_chunk(
    model: MethodModel, store: ImageStore, steps: Iterable[Step], count: int, only: int | None
) -> tuple[Tensor, Tensor]:
    """Sent vectors ``[J, D]`` and losses ``[J]`` on the CPU; ``only`` so many steps."""
    features = _Features(model)
    trained = {id(parameter) for parameter in model.trainable().values()}
    parameters = {n: p for n, p in features.named_parameters() if id(p) in trained}
    shapes = [parameter.shape for parameter in parameters.values()]
    sizes = [shape.numel() for shape in shapes]
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters.values()])
    values = flat.expand(count, -1).clone()
    mean, square = torch.zeros_like(values), torch.zeros_like(values)
    losses, counted = (torch.zeros(count, device=values.device) for _ in range(2))

    def of_client(own: Tensor, images: Tensor) -> Tensor:
        pieces = (piece.view(shape) for piece, shape in zip(own.split(sizes), shapes, strict=True))
        found: Tensor = functional_call(
            features, dict(zip(parameters, pieces, strict=True)), images
        )
        return found

    for step in islice(steps, only):
        active = len(step.rows)
        own = values[:active].detach().requires_grad_(True)
        images = store.inputs(step.rows.flatten())
        images = images.view(active, -1, *images.shape[1:])
        # Plain products: of the fused kernels some have no gradient under vmap.
        with _differentiable_attention(), sdpa_kernel(SDPBackend.MATH):
            found = vmap(of_client)(own, images).view(*step.labels.shape, -1)
        loss = folded_loss(found, step.labels, step.real)
        (gradient,) = torch.autograd.grad(loss.sum(), own)
        adamw_step(
            values[:active], mean[:active], square[:active], gradient,
            step.step_size, step.root, step.moves,
        )  # fmt: skip
        weight = (step.last & step.moves)[:, 0].float()
        losses[:active] += weight * loss.detach()
        counted[:active] += weight
    return _sent(model, list(parameters.values()), values), (losses / counted.clamp_min(1)).cpu()


@torch.no_grad()
def _sent(model: MethodModel, parameters: Sequence[nn.Parameter], values: Tensor) -> Tensor:
    sizes = [parameter.numel() for parameter in parameters]
    vectors = []
    for line in values:
        for parameter, piece in zip(parameters, line.split(sizes), strict=True):
            parameter.copy_(piece.view_as(parameter))
        vectors.append(model.sent_vector().cpu())
    return torch.stack(vectors)


@contextmanager
def _differentiable_attention() -> Iterator[None]:
    """PyTorch does not see through ``vmap`` that gradients are wanted, and takes a path without."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
