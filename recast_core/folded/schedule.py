"""Which images each client sees in each step, known before any is touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recast_core.batches import picks, shuffled
from recast_core.folded.adamw import step_factors
from recast_core.objectives import Batch, Objective
from recast_core.recipe import Recipe

_NONE = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class FoldedClient:
    """One client's share of a store of images.

    Attributes:
        rows: int64 ``[N]``, on the CPU: its images in the store.
        labels: int64 ``[N]``, global class ids.
        seed: of its shuffling, as ``recast_core.fitting.fit`` takes it.
        filler: int64 rows of images without a label, which fill up batches of few; may be empty.
        local: its BatchNorms normalise by its own batches.
        mix: float32 ``[C]``, see ``Batch``; one for all clients of a training, or for none.
    """

    rows: Tensor
    labels: Tensor
    seed: int
    filler: Tensor = _NONE
    local: bool = False
    mix: Tensor | None = None

    @property
    def all_rows(self) -> Tensor:
        """Rows of its images, those without a label last."""
        if not self.filler.numel():
            return self.rows
        return torch.cat([self.rows, self.filler])

    @property
    def all_labels(self) -> Tensor:
        """Labels of ``all_rows``, -1 for none."""
        return torch.cat([self.labels, torch.full_like(self.filler, -1)])

    def steps(self, batch: int) -> int:
        """Steps in one epoch."""
        return max(1, -(-self.labels.numel() // batch))


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the first A clients of a chunk, N images of each.

    Attributes:
        rows: int64 ``[A, N]`` into the store; padding points at an image of the client.
        batch: their labels, and which are padding: two halves, each padded at its end.
        moves: bool ``[A, 1]``: whether the batch teaches anything.
        step_size: see ``adamw_step``, ``[A, 1]``.
        root: likewise.
        last: bool ``[A, 1]``, whether the step is of the client's last epoch.
    """

    rows: Tensor
    batch: Batch
    moves: Tensor
    step_size: Tensor
    root: Tensor
    last: Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """The steps of a chunk of J clients, of which the first have most.

    Attributes:
        shapes: A and H of each step, half of N.
        classes: the most that any client has.
        rows: int64 ``[S, J, 2, H]``, H the largest; padding points at the client's first image.
        labels: likewise, global class ids; in padding that of the client's first image.
        own: likewise, ids of the client's own, -1 in padding.
        rates: float32 ``[S, J, 4]``: ``step_size``, ``root``, ``moves``, ``last``.
        local: bool ``[J]``; see ``FoldedClient``.
        mix: float32 ``[J, C]``; likewise.
    """

    shapes: list[tuple[int, int]]
    classes: int
    rows: Tensor
    labels: Tensor
    own: Tensor
    rates: Tensor
    local: Tensor | None
    mix: Tensor | None = None

    @property
    def tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``rows``, ``labels``, ``own`` and ``rates``: what differs from step to step."""
        return self.rows, self.labels, self.own, self.rates

    def to(self, device: torch.device) -> Schedule:
        """The schedule on a device, in one go: steps then wait for nothing."""
        rows, labels, own, rates = (table.to(device) for table in self.tables)
        local, mix = (None if t is None else t.to(device) for t in (self.local, self.mix))
        return Schedule(self.shapes, self.classes, rows, labels, own, rates, local, mix)

    def uniform(self) -> Schedule:
        """The same steps, all of the largest shape: finished clients stay, and do not move."""
        shape = (self.rows.shape[1], self.rows.shape[3])
        return replace(self, shapes=[shape] * len(self.shapes))

    def shown(self) -> list[int]:
        """The labelled images of each step, over all clients."""
        real = (self.own >= 0) & (self.labels >= 0)
        counts: list[int] = real.flatten(1).sum(1).tolist()
        return counts

    def steps(self) -> Iterator[Step]:
        """One after another."""
        for number, (active, half) in enumerate(self.shapes):
            rows, labels, own = (
                table[number, :active, :, :half].flatten(1)
                for table in (self.rows, self.labels, self.own)
            )
            size, root, moves, last = self.rates[number, :active].split(1, -1)
            local, mix = (None if t is None else t[:active] for t in (self.local, self.mix))
            batch = Batch(labels, own.clamp_min(0), own >= 0, self.classes, local, mix)
            yield Step(rows, batch, moves > 0, size, root, last > 0)


def schedule(
    clients: Sequence[FoldedClient],
    objective: Objective,
    recipe: Recipe,
    *,
    uniform: bool = False,
) -> Schedule:
    """The steps of a chunk, with every client's batches as ``fit`` draws them for it alone.

    Args:
        clients: those with more steps first, so that the ones still training come first.
        objective: says which batches teach something.
        recipe: epochs, batch, and the rate of AdamW.
        uniform: give every step the same shapes, for a compiled model: finished clients stay, and
            do not move.
    """
    epochs, batch = recipe.epochs, recipe.batch
    sizes = [client.labels.numel() for client in clients]
    counts = torch.tensor([epochs * client.steps(batch) for client in clients])
    total = int(counts.max())
    places = {size: _places(size, epochs, batch) for size in set(sizes)}
    half = max(place.shape[2] for place in places.values())
    fills = [client.filler.numel() > 0 for client in clients]
    if any(fills):
        half = max(half, -(-batch // 2))
    order, generators = _orders(clients, epochs, fills)
    padded = {
        size: nn.functional.pad(
            place, (0, half - place.shape[2], 0, 0, 0, total - place.shape[0]), value=-1
        )
        for size, place in places.items()
    }
    where = (
        torch.stack([padded[size] for size in sizes])
        if len(padded) > 1
        else padded[sizes[0]].expand(len(sizes), -1, -1, -1)
    )
    chosen = order.gather(1, where.clamp_min(0).flatten(1)).view_as(where)
    chosen = torch.where(where < 0, -1, chosen)
    (rows, labels, own), classes = _look_up(clients, chosen)
    for place, generator in generators.items():
        tables = rows[:, place], labels[:, place], own[:, place]
        _fill(tables, clients[place].filler, int(counts[place]), batch, generator)
    moves = torch.stack(
        [
            objective.teaches(Batch(names.flatten(1), ids.clamp_min(0), ids >= 0, classes))
            for names, ids in zip(labels, own.flatten(2), strict=True)
        ]
    )
    step_size, root = step_factors(moves.cumsum(0), recipe.learning_rate)
    numbers = torch.arange(total).unsqueeze(1)
    last = (numbers >= counts - counts // epochs) & (numbers < counts)
    filled = (own >= 0).any(1).any(1)
    active = (numbers < counts).sum(1)
    shapes = list(zip(active.tolist(), filled.sum(1).tolist(), strict=True))
    rates = torch.stack([step_size, root, moves.float(), last.float()], -1)
    own_norms = torch.tensor([client.local for client in clients])
    local = own_norms if own_norms.any() else None
    mixes = [client.mix for client in clients if client.mix is not None]
    mix = torch.stack(mixes) if len(mixes) == len(clients) else None
    found = Schedule(shapes, classes, rows, labels, own, rates, local, mix)
    return found.uniform() if uniform else found


def _orders(
    clients: Sequence[FoldedClient], epochs: int, fills: Sequence[bool]
) -> tuple[Tensor, dict[int, torch.Generator]]:
    """Each client's shuffled images, pass by pass: int64 ``[J, E * N]``, -1 beyond its own.

    Where batches are to be filled up, by the client's index, also the generator that goes on.
    """
    generators: dict[int, torch.Generator] = {}
    common, lines = torch.Generator(), []
    for place, client in enumerate(clients):
        generator = common
        if fills[place]:
            generator = generators[place] = torch.Generator()
        generator.manual_seed(client.seed)
        lines.append(shuffled(client.labels.shape[0], epochs, generator).view(-1))
    return _padded(lines, -1), generators


def _padded(lines: Sequence[Tensor], value: int) -> Tensor:
    """Lines ``[J, N]``, those that are shorter than others filled up."""
    if len({line.numel() for line in lines}) == 1:
        return torch.stack(list(lines))
    return nn.utils.rnn.pad_sequence(list(lines), batch_first=True, padding_value=value)


def _fill(
    tables: tuple[Tensor, Tensor, Tensor],
    filler: Tensor,
    steps: int,
    batch: int,
    generator: torch.Generator,
) -> None:
    """Fill one client's batches up with images without a label, in place.

    Args:
        tables: its rows, labels and own ids, each ``[S, 2, H]``.
        filler: rows to draw from.
        steps: that the client takes.
        batch: images per step.
        generator: where the client's shuffling left it.
    """
    rows, labels, own = (table.flatten(1) for table in tables)
    for step in range(steps):
        vacant = (own[step] < 0).nonzero().squeeze(1)
        room = batch - (own.shape[1] - len(vacant))
        chosen = vacant[:room] if room > 0 else vacant[:0]
        rows[step, chosen] = filler[picks(len(chosen), len(filler), generator)]
        labels[step, chosen] = -1
        own[step, chosen] = 0
    for table, filled in zip(tables, (rows, labels, own), strict=True):
        table.copy_(filled.view_as(table))


def _places(size: int, epochs: int, batch: int) -> Tensor:
    """Where in its shuffled images each step of a client looks: int64 ``[S, 2, H]``, -1 padding.

    Batches are as equal as can be, like those of ``fit``; the second half gets the odd image.
    """
    parts = torch.tensor_split(torch.arange(size), max(1, -(-size // batch)))
    half = max(-(-len(part) // 2) for part in parts)
    places = torch.full((len(parts), 2, half), -1)
    for place, part in zip(places, parts, strict=True):
        middle = len(part) // 2
        place[0, :middle] = part[:middle]
        place[1, : len(part) - middle] = part[middle:]
    offsets = size * torch.arange(epochs).view(-1, 1, 1, 1)
    return torch.where(places < 0, -1, places + offsets).flatten(0, 1)


def _look_up(
    clients: Sequence[FoldedClient], chosen: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """Rows, global and own labels of ``chosen`` ``[J, S, 2, H]``, each ``[S, J, 2, H]``; classes.

    Padding has the own label -1, and else what the client's first image has: one that has been
    prepared.
    """
    labels = _padded([client.labels for client in clients], -1)
    # A client's own ids: the rank of a label among those that it has.
    names, columns = labels.unique(return_inverse=True)
    has = torch.zeros(len(clients), len(names), dtype=torch.bool)
    has.scatter_(1, columns, True)
    has[:, names < 0] = False
    rank = has.long().cumsum(1) - 1
    own = rank.gather(1, columns)
    rows = _padded([client.rows for client in clients], 0)
    index = chosen.clamp_min(0).flatten(1)
    at, global_at, own_at = (
        table.gather(1, index).view_as(chosen).transpose(0, 1).contiguous()
        for table in (rows, labels, own)
    )
    own_at[(chosen < 0).transpose(0, 1)] = -1
    return (at, global_at, own_at), int(has.sum(1).max())
