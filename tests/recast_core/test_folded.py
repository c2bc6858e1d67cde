"""A folded client gets what it would get alone: invariant 3, for every layer and every size."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from recast_core import RecastConfig, RecastError, RecastModel, attach, mimic
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.fitting import features_of, fit
from recast_core.folded import (
    BankFold,
    Chunking,
    FoldedClient,
    How,
    ImageStore,
    Judged,
    SplitModel,
    count_correct,
    features_at,
    split_model,
    train,
)
from recast_core.heads.ridge import ridge_head
from recast_core.objectives import SplitRidge
from recast_core.objectives.split_ridge import folded_loss, split_ridge_loss
from recast_core.recipe import Recipe

CLASSES = 4
RIDGE = SplitRidge(CLASSES)
BRIEF = Recipe(batch=16)
CPU = torch.device("cpu")
# More steps than the smallest has images for, unequal batches, a leftover, and one client of two.
SIZES = (2, 3, 7, 16, 17, 33, 40)


def resnet() -> nn.Module:
    torch.manual_seed(0)
    model = CifarResNet(8, CLASSES)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(8, 4, 3, 2, 16, 32, num_classes=CLASSES)
    nn.init.normal_(model.heads.head.weight)
    return model


MODELS = {
    "conv": (resnet, RecastConfig(("layer?.0.conv*",))),
    "conv with sets": (resnet, RecastConfig(("layer?.0.conv*",), sets=2)),
    "orthonormal": (resnet, RecastConfig(("layer?.0.conv*",), basis="orthonormal")),
    "residual": (resnet, RecastConfig(("layer?.0.conv*",), residual=True)),
    "seeded": (resnet, RecastConfig(("layer?.0.conv*",), residual=True, source="seeded")),
    "linear": (vit, RecastConfig("mlp")),
    "attention": (vit, RecastConfig("attn")),
    "both": (vit, RecastConfig("attn+mlp", residual=True, base_in_bank=True)),
}


def attached(name: str) -> RecastModel:
    build, config = MODELS[name]
    model = build()
    return attach(model, mimic(model, config))


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(CLASSES, 3, 8, 8, generator=generator)
    count = sum(SIZES)
    labels = torch.arange(count) % CLASSES
    return patterns[labels] + torch.randn(count, 3, 8, 8, generator=generator), labels


def shares(labels: Tensor, sizes: Sequence[int] = SIZES) -> list[FoldedClient]:
    rows = torch.arange(sum(sizes)).split(list(sizes))
    return [FoldedClient(r, labels[r], seed=100 + i) for i, r in enumerate(rows)]


def folded(
    net: RecastModel, images: Tensor, memory: int = 1 << 28
) -> tuple[SplitModel, ImageStore]:
    model = split_model(net, images.shape[-1])
    return model, ImageStore(images, lambda x: x, model.prefix, CPU, memory)


def alone(net: RecastModel, images: Tensor, clients: list[FoldedClient], epochs: int) -> Tensor:
    found = []
    for client in clients:
        net.coefficients.load()
        one = fit(
            net, images[client.rows], client.labels, CLASSES,
            Recipe(epochs, 16, 2e-2), client.seed,
        )  # fmt: skip
        found.append(torch.cat([one.coefficients, torch.tensor([one.loss])]))
    net.coefficients.load()
    return torch.stack(found)


@pytest.mark.parametrize("name", MODELS)
def test_a_folded_client_ends_where_it_ends_alone(name: str) -> None:
    net = attached(name)
    images, labels = pictures()
    clients = shares(labels)
    model, store = folded(net, images)
    together = train(
        BankFold(model), store, clients, RIDGE, Recipe(3, 16, 2e-2), how=How(Chunking(4))
    )  # fmt: skip
    expected = alone(net, images, clients, 3)
    assert bool(together.finite.all())
    moved = (expected[:, :-1] - net.bank.initial_vector).abs().amax(1)
    assert bool((moved[2:] > 1e-2).all())  # two or three images may teach nothing
    torch.testing.assert_close(together.coefficients, expected[:, :-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(together.losses, expected[:, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_chunk_changes_nothing(size: int) -> None:
    net = attached("conv")
    images, labels = pictures()
    model, store = folded(net, images)
    runs = [
        train(
            BankFold(model),
            store,
            shares(labels),
            RIDGE,
            Recipe(batch=16, learning_rate=2e-2),
            how=How(Chunking(chunk)),
        )
        for chunk in (5, size)
    ]
    torch.testing.assert_close(runs[0].coefficients, runs[1].coefficients, rtol=0, atol=1e-5)


def test_the_same_seed_and_as_many_threads_give_the_same_bits() -> None:
    net = attached("conv")
    images, labels = pictures()
    found = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        try:
            model, store = folded(net, images)
            done: list[int] = []
            result = train(
                BankFold(model), store, shares(labels), RIDGE, BRIEF,
                how=How(finished=done.append),
            )  # fmt: skip
        finally:
            torch.set_num_threads(1)
        assert sum(done) == len(SIZES)
        found.append(result.coefficients)
    assert torch.equal(found[1], found[2])
    # A library divides a product's sum among its threads: their number shows in the last bits.
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["conv", "both"])
def test_any_number_of_workers_gives_the_bits_of_one_thread(name: str) -> None:
    net = attached(name)
    images, labels = pictures()
    found = []
    for threads, workers in ((1, 0), (1, 3), (2, 1), (2, 2)):
        torch.set_num_threads(threads)
        try:
            model, store = folded(net, images)
            result = train(
                BankFold(model), store, shares(labels), RIDGE, BRIEF,
                how=How(workers=workers),
            )  # fmt: skip
        finally:
            torch.set_num_threads(1)
        found.append(result.coefficients)
    for other in found[1:]:
        assert torch.equal(other, found[0])


def test_one_client_does_not_hang_on_who_else_is_there() -> None:
    net = attached("conv")
    images, labels = pictures()
    model, store = folded(net, images)
    clients = shares(labels)
    every = train(BankFold(model), store, clients, RIDGE, BRIEF)
    some = train(BankFold(model), store, clients[::2], RIDGE, BRIEF)
    torch.testing.assert_close(some.coefficients, every.coefficients[::2], rtol=0, atol=1e-5)


def test_a_client_that_diverges_spoils_no_other() -> None:
    net = attached("conv")
    images, labels = pictures()
    clients = shares(labels)
    spoilt = images.clone()
    spoilt[clients[3].rows] = float("nan")
    results = []
    for pixels in (images, spoilt):
        model, store = folded(net, pixels)
        results.append(train(BankFold(model), store, clients, RIDGE, BRIEF, how=How(Chunking(7))))
    fine, other = results
    assert other.finite.tolist() == [i != 3 for i in range(len(SIZES))]
    kept = other.finite
    torch.testing.assert_close(other.coefficients[kept], fine.coefficients[kept], rtol=0, atol=1e-6)


def test_only_the_coefficients_ever_change_and_they_are_put_back() -> None:
    net = attached("both")
    images, labels = pictures()
    before = {name: t.detach().clone() for name, t in net.state_dict().items()}
    model, store = folded(net, images)
    train(BankFold(model), store, shares(labels), RIDGE, BRIEF)
    assert net.coefficients.clients is None
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_labels_that_teach_nothing_are_refused() -> None:
    net = attached("conv")
    images, _ = pictures()
    model, store = folded(net, images)
    rows = torch.arange(4)
    for labels in (torch.tensor([1]), torch.ones(4, dtype=torch.int64)):
        with pytest.raises(RecastError, match="one class"):
            train(
                BankFold(model), store, [FoldedClient(rows[: len(labels)], labels, 0)], RIDGE, BRIEF
            )


@pytest.mark.parametrize("name", MODELS)
def test_the_parts_of_a_divided_model_make_the_whole(name: str) -> None:
    net = attached(name)
    images, _ = pictures()
    model = split_model(net, images.shape[-1])
    assert model.prefix is not None
    assert not list(model.prefix.parameters()) or not any(
        p is net.coefficients.flat for p in model.prefix.parameters()
    )
    with torch.no_grad():
        found = model.suffix(model.prefix(images[:5]))
        torch.testing.assert_close(found, net.features(images[:5]), rtol=1e-5, atol=1e-6)


class _Stubborn(nn.Module):
    """A forward that looks at its values: nothing that can be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(192, 8)
        self.mid1 = nn.Linear(8, 8)
        self.mid2 = nn.Linear(8, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images.flatten(1))
        if bool((x > 1e9).any()):
            x = -x
        out: Tensor = self.head(self.mid2(torch.relu(self.mid1(torch.relu(x)))).tanh())
        return out


def test_a_model_that_cannot_be_traced_stays_whole_and_trains() -> None:
    torch.manual_seed(0)
    backbone = _Stubborn()
    net = attach(backbone, mimic(backbone, RecastConfig(("mid*",))))
    images, labels = pictures()
    model, store = folded(net, images)
    assert model.prefix is None
    clients = shares(labels)
    found = train(BankFold(model), store, clients, RIDGE, Recipe(3, 16, 2e-2))
    expected = alone(net, images, clients, 3)
    torch.testing.assert_close(found.coefficients, expected[:, :-1], rtol=0, atol=1e-5)


def test_what_a_store_keeps_follows_its_memory_and_changes_no_result() -> None:
    net = attached("conv")
    images, labels = pictures()
    pixels = images.numel() * 4
    found = {}
    for memory in (1 << 28, pixels, 0):
        model, store = folded(net, images, memory)
        result = train(BankFold(model), store, shares(labels), RIDGE, BRIEF)
        kept = store.bytes - pixels
        found[{0: "nothing", pixels: "pixels"}.get(kept, "prefix")] = result.coefficients
        assert store.bytes <= memory + pixels
    assert sorted(found) == ["nothing", "pixels", "prefix"]
    for other in found.values():
        torch.testing.assert_close(other, found["prefix"], rtol=0, atol=1e-5)


def test_every_image_goes_through_the_frozen_layers_once() -> None:
    net = attached("conv")
    images, labels = pictures()
    seen: list[int] = []
    model = split_model(net, images.shape[-1])
    assert model.prefix is not None

    def prepare(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x

    store = ImageStore(images, prepare, model.prefix, CPU, 1 << 28)
    clients = shares(labels)
    for _ in range(2):
        train(BankFold(model), store, clients[:3], RIDGE, Recipe(batch=4))
    assert sum(seen) == sum(SIZES[:3]) + 1
    train(BankFold(model), store, clients, RIDGE, Recipe(batch=4))
    assert sum(seen) == sum(SIZES) + 1


@pytest.mark.parametrize("sizes", [(1, 1), (2, 5), (8, 3), (9, 16)])
def test_the_folded_loss_is_the_loss_of_each(sizes: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    half = 8
    features = torch.randn(2, 2, half, 6, generator=generator, requires_grad=True)
    labels = torch.zeros(2, 2, half, dtype=torch.int64)
    real = torch.zeros(2, 2, half, 3)
    expected, gradients = [], []
    for j, size in enumerate(sizes):
        own = torch.randint(0, 3, (size,), generator=generator)
        middle = size // 2
        for side, part in enumerate((own[:middle], own[middle:])):
            labels[j, side, : len(part)] = part
            real[j, side, torch.arange(len(part)), part] = 1
        x = torch.cat([features[j, 0, :middle], features[j, 1, : size - middle]])
        loss = split_ridge_loss(x, own, 3)
        expected.append(0.0 if loss is None else float(loss.detach()))
        if loss is not None:
            gradients.append((j, torch.autograd.grad(loss, features)[0][j]))
    found = folded_loss(features, labels, real)
    torch.testing.assert_close(found.detach(), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(found.sum(), features)
    for j, wanted in gradients:
        torch.testing.assert_close(gradient[j], wanted, rtol=1e-3, atol=1e-5)
    assert bool(torch.isfinite(gradient).all())


def test_heads_solved_together_count_as_heads_solved_alone() -> None:
    generator = torch.Generator().manual_seed(4)
    patterns = torch.randn(CLASSES, 12, generator=generator)
    labels = torch.randint(0, CLASSES, (600,), generator=generator)
    features = patterns[labels] + 1.5 * torch.randn(600, 12, generator=generator)
    clients, expected, at = [], [], 0
    for size in (1, 2, 5, 11, 12, 13, 40, 41, 90, 5):
        learn, judge = torch.arange(at, at + size), torch.arange(at + size, at + 2 * size)
        at += 2 * size
        if size == 5:
            labels[learn] = labels[learn].clamp(1, 2)
        if size == 90:
            judge = judge[:0]
        clients.append(Judged(learn, labels[learn], judge, labels[judge]))
        head = ridge_head(features[learn], labels[learn], CLASSES)
        expected.append(int((head(features[judge]).argmax(1) == labels[judge]).sum()))
    assert count_correct(features, clients) == expected
    assert 0 < sum(expected) < 130


def test_features_of_a_store_are_those_of_the_model() -> None:
    net = attached("attention")
    images, _ = pictures()
    model, store = folded(net, images)
    vector = net.bank.initial_vector + 0.1
    found = features_at(model, store, torch.tensor([5, 2, 9]), vector)
    net.coefficients.load(vector)
    expected = features_of(net, images[[5, 2, 9]])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_half_precision_moves_coefficients_close_to_where_float32_does() -> None:
    net = attached("linear")
    images, labels = pictures()
    clients = shares(labels)[3:]
    model, store = folded(net, images)
    exact, rough = (
        train(BankFold(model, half), store, clients, RIDGE, BRIEF) for half in (False, True)
    )
    start = net.bank.initial_vector
    moved = (exact.coefficients - start).norm()
    assert not torch.equal(exact.coefficients, rough.coefficients)
    assert float((rough.coefficients - exact.coefficients).norm() / moved) < 0.3


def test_memory_that_runs_out_halves_the_chunk_and_loses_nobody() -> None:
    from recast_core.folded.chunks import in_chunks

    done: list[int] = []

    def work(part: Sequence[int]) -> None:
        if len(part) > 3:
            raise torch.OutOfMemoryError
        done.extend(part)

    chunking = Chunking(16)
    in_chunks(list(range(40)), chunking, work)
    assert done == list(range(40))
    assert (chunking.size, chunking.halved) == (2, 3)

    def never(part: Sequence[int]) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(RecastError, match="smaller batch"):
        in_chunks([1, 2], Chunking(2), never)


@pytest.mark.parametrize("name", MODELS)
def test_on_a_cpu_company_changes_not_one_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = attached(name)
    images, _ = pictures()
    sizes = (7, 7, 7, 7, 18, 18, 18, 36)
    labels = torch.cat([torch.arange(size) % CLASSES for size in sizes])
    clients = shares(labels, sizes)
    model, store = folded(net, images)
    recipe = Recipe(2, 16, 2e-2)
    monkeypatch.setattr("recast_core.folded.chunks._CHUNKS_PER_CORE", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        together = [
            train(BankFold(model), store, clients, RIDGE, recipe, how=How(workers=workers))
            for workers in (0, 2)
        ]
        alone = []
        for client in clients:
            own = ImageStore(images[client.rows], lambda x: x, model.prefix, CPU)
            here = FoldedClient(torch.arange(len(client.rows)), client.labels, client.seed)
            alone.append(train(BankFold(model), own, [here], RIDGE, recipe).coefficients)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together[0].coefficients, together[1].coefficients)
    assert torch.equal(together[0].coefficients, torch.cat(alone))
