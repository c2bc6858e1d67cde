"""BatchNorm statistics of a client's own images: what counts, who uses them, folded or alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.data import load_dataset, parse_task
from recast_core import RecastConfig, RecastError, RecastModel, attach, mimic, statistics
from recast_core.backbones import load_backbone
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.backbones.preprocess import Preprocess
from recast_core.batches import batches
from recast_core.folded import BankFold, Chunking, FoldedClient, How, ImageStore, split_model, train
from recast_core.layers import RecastBatchNorm2d
from recast_core.layers.statistics import BatchStatistics, Merged, moments
from recast_core.learner import BankLearner, folded_client, method_learner
from recast_core.objectives import CrossEntropy, LabelFree, Objective
from recast_core.recipe import Recipe
from recast_core.statistics import (
    STATISTICS_IMAGES,
    adopt_statistics,
    early_norms,
    features_by,
    own_statistics,
    spread_choice,
    tape_of,
)

CLASSES, SIZE = 4, 8
CPU = torch.device("cpu")
SIZES = (5, 12, 17)


def norm() -> RecastBatchNorm2d:
    torch.manual_seed(0)
    original = nn.BatchNorm2d(3).eval()
    original.running_mean.normal_()  # type: ignore[union-attr]
    original.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    nn.init.uniform_(original.weight, 0.5, 1.5)
    layer = RecastBatchNorm2d(original, {})
    layer.statistics = BatchStatistics()
    return layer


def switch(layer: RecastBatchNorm2d) -> BatchStatistics:
    assert layer.statistics is not None
    return layer.statistics


def trained_mode(layer: RecastBatchNorm2d, x: Tensor) -> Tensor:
    plain = layer.original
    return F.batch_norm(x, None, None, plain.weight, plain.bias, training=True, eps=plain.eps)


def test_rows_that_count_alone_decide_what_all_rows_are_normalised_by() -> None:
    layer = norm()
    x = 3 * torch.randn(2 * 6, 3, 4, 4) + 1
    counted = torch.tensor([[1.0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    with switch(layer).of(counted):
        found = layer(x)
    first, second = x.view(2, 6, 3, 4, 4)
    torch.testing.assert_close(found[:4], trained_mode(layer, first[:4]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[6:], trained_mode(layer, second), rtol=1e-4, atol=1e-5)
    x[4:6] = 1e6  # padding
    with switch(layer).of(counted):
        torch.testing.assert_close(layer(x)[:4], found[:4])


def test_a_client_that_keeps_the_frozen_statistics_gets_them_beside_one_that_does_not() -> None:
    layer = norm()
    x = torch.randn(2 * 5, 3, 4, 4)
    with switch(layer).of(torch.ones(2, 5), torch.tensor([False, True])):
        found = layer(x)
    torch.testing.assert_close(found[:5], layer(x[:5]))
    torch.testing.assert_close(found[5:], trained_mode(layer, x[5:]), rtol=1e-4, atol=1e-5)


def test_rows_that_are_known_to_count_all_are_normalised_alike_by_the_fused_kernel() -> None:
    layer = norm()
    x = 2 * torch.randn(6, 3, 4, 4) - 1
    with switch(layer).of(torch.ones(6)):
        expected = layer(x)
    with switch(layer).of(torch.ones(6), whole=True):
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    assert not switch(layer).whole


def test_outside_the_block_nothing_has_changed() -> None:
    layer = norm()
    x = torch.randn(4, 3, 4, 4)
    before = layer(x)
    with switch(layer).of(torch.ones(4)):
        assert not torch.equal(layer(x), before)
    assert torch.equal(layer(x), before)
    assert torch.equal(layer.original.running_mean, norm().original.running_mean)  # type: ignore[arg-type]


def resnet() -> nn.Module:
    torch.manual_seed(0)
    model = CifarResNet(8, CLASSES)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model


def attached() -> RecastModel:
    model = resnet()
    net = attach(model, mimic(model, RecastConfig(("layer?.0.conv*",), residual=True)))
    net.statistics = own_statistics(net.backbone)
    return net


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(sum(SIZES)) % CLASSES
    patterns = torch.randn(CLASSES, SIZE, SIZE, 3, generator=generator)
    noise = torch.randn(sum(SIZES), SIZE, SIZE, 3, generator=generator)
    images = (128 + 40 * (patterns[labels] + noise)).clamp(0, 255).byte()
    return images, labels


@pytest.mark.parametrize("few", [False, True], ids=["all labelled", "few labelled"])
@pytest.mark.parametrize("objective", ["cross-entropy", "label-free"])
def test_clients_folded_together_learn_what_each_learns_alone(few: bool, objective: str) -> None:
    net = attached()
    images, labels = pictures()
    preprocess = Preprocess(SIZE)
    recipe = Recipe(epochs=2, batch=8, learning_rate=0.05, objective=objective)
    model = split_model(net, SIZE)
    store = ImageStore(images, preprocess, model.prefix, CPU)
    known = labels.clone()
    if objective == "label-free":
        known[:] = -1
    elif few:
        known[torch.arange(len(labels)) % 3 > 0] = -1
    shares = torch.arange(len(labels)).split(list(SIZES))
    local = (True, False, True)
    clients = [folded_client(rows, known[rows], 7 + i, local[i]) for i, rows in enumerate(shares)]
    mixes: list[Tensor | None] = [None] * len(SIZES)
    if objective == "label-free" and few:
        mixes = [*torch.rand(len(SIZES), CLASSES).add(0.1).softmax(1)]
        clients = [replace(one, mix=mix) for one, mix in zip(clients, mixes, strict=True)]
    kept: Objective = (
        CrossEntropy(net.own_head) if objective == "cross-entropy" else LabelFree(net.own_head)
    )
    together = train(
        BankFold(model), store, clients, kept, recipe, how=How(Chunking(3))
    ).coefficients
    learner = BankLearner(model, preprocess)
    start = net.bank.initial_vector.numpy()
    for i, rows in enumerate(shares):
        alone = (
            learner.expecting(mixes[i])
            .fit(start, images[rows], known[rows], CLASSES, recipe, 7 + i, local=local[i])
            .vector
        )
        torch.testing.assert_close(together[i], torch.from_numpy(alone), rtol=0, atol=1e-5)
        assert not torch.equal(together[i], net.bank.initial_vector)


def test_the_plain_loop_of_another_method_sees_the_batches_of_the_folded_one() -> None:
    images, labels = pictures()
    known = torch.where(torch.arange(len(labels)) % 3 > 0, -1, labels)
    preprocess, vectors = Preprocess(SIZE), []
    recipe = Recipe(epochs=2, batch=8, learning_rate=0.01, objective="cross-entropy")
    learner = method_learner("norm-affine", resnet(), preprocess, CPU, statistics=True)
    start = learner.start.initial_vector
    vectors.append(
        torch.from_numpy(
            learner.fit(start.numpy(), images, known, CLASSES, recipe, 3, local=True).vector
        )
    )
    from recast_core.folded.method_fold import MethodFold

    other = method_learner("norm-affine", resnet(), preprocess, CPU, statistics=True)
    store = ImageStore(images, preprocess, None, CPU)
    client = folded_client(torch.arange(len(labels)), known, 3, local=True)
    objective = CrossEntropy(other.head)
    found = train(MethodFold(other.model), store, [client], objective, recipe, start)
    torch.testing.assert_close(found.coefficients[0], vectors[0], rtol=0, atol=1e-4)
    assert not torch.equal(vectors[0], start)


def test_batches_hold_every_labelled_image_once_an_epoch_and_are_filled_up() -> None:
    labels = torch.tensor([0, -1, 1, -1, -1, 2, 3, -1, 0, 1])
    seen = [rows for epoch, rows in batches(labels, Recipe(epochs=1, batch=4), 0)]
    assert [len(rows) for rows in seen] == [4, 4]
    found = torch.cat(seen)
    assert sorted(found[labels[found] >= 0].tolist()) == [0, 2, 5, 6, 8, 9]


def test_features_by_others_do_not_depend_on_how_they_are_divided() -> None:
    net = attached()
    assert net.statistics is not None
    images, _ = pictures()
    pixels = Preprocess(SIZE)(images)
    by, wanted = pixels[:20], pixels[20:]
    whole = features_by(net.features, net.statistics, (by, wanted), 100)
    parts = features_by(net.features, net.statistics, (by, wanted), 3)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole, net.features(wanted), atol=1e-3)
    counted = torch.zeros(len(pixels))
    counted[:20] = 1
    with torch.no_grad(), net.statistics.of(counted):
        together = net.features(pixels)[20:]
    torch.testing.assert_close(whole, together, rtol=1e-4, atol=1e-5)
    assert len(features_by(net.features, net.statistics, (by, wanted[:0]))) == 0


def test_large_images_are_shown_few_at_a_time_and_those_that_give_statistics_once() -> None:
    net = attached()
    assert net.statistics is not None
    shown: list[int] = []

    def features(images: torch.Tensor) -> torch.Tensor:
        shown.append(len(images))
        return net.features(images)

    by, wanted = torch.randn(6, 3, 8, 8), torch.randn(9, 3, 1024, 1024)
    few = torch.nn.functional.interpolate(wanted, (8, 8))
    features_by(features, net.statistics, (by, few))
    assert shown == [6, 9]
    shown.clear()
    features_by(lambda images: features(images[..., :8, :8]), net.statistics, (by, wanted))
    assert shown == [6, 5, 4]


def test_of_many_images_an_even_choice_gives_the_statistics() -> None:
    assert spread_choice(7).tolist() == list(range(7))
    chosen = spread_choice(5000)
    assert len(chosen.unique()) == STATISTICS_IMAGES
    assert (chosen[0], chosen[-1]) == (0, 4999)


def test_another_kind_of_batch_norm_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Conv1d(3, 3, 1), nn.BatchNorm1d(3))
    with pytest.raises(RecastError, match=r"1 is a BatchNorm1d: .* --statistics frozen"):
        own_statistics(model)
    assert own_statistics(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))) is None


def test_a_client_without_filler_and_local_statistics_is_what_it_was() -> None:
    rows = torch.arange(4)
    client = folded_client(rows, torch.tensor([0, 1, -1, 1]), 1)
    assert client.rows.tolist() == [0, 1, 3]
    assert client.filler.tolist() == [2]
    assert client.all_labels.tolist() == [0, 1, 1, -1]
    assert FoldedClient(rows, rows, 1).filler.tolist() == []


@pytest.mark.parametrize("sizes", [(20,), (7, 13), (1, 6, 13), (5, 5, 5, 5)])
def test_moments_of_parts_merge_to_those_of_all_images(sizes: tuple[int, ...]) -> None:
    rows = 3 * torch.randn(sum(sizes), 4, 5, 5, dtype=torch.float64) + 100
    merged = Merged()
    for part in rows.split(list(sizes)):
        merged.add(moments(part, torch.ones(len(part), dtype=part.dtype)), len(part))
    for found, wanted in zip(
        merged.result(rows), moments(rows, torch.ones(len(rows), dtype=rows.dtype)), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


def test_statistics_of_images_in_parts_are_those_of_one_pass_and_no_part_is_larger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = attached().double()
    assert net.statistics is not None
    images, _ = pictures()
    by = Preprocess(SIZE)(images).double()
    shown: list[int] = []

    def features(some: Tensor) -> Tensor:
        shown.append(len(some))
        return net.features(some)

    whole, _ = tape_of(features, net.statistics, by)
    assert shown == [len(by)]
    monkeypatch.setattr(statistics, "_NUMBERS_A_PASS", 10 * by[:1].numel())
    parts, some = tape_of(features, net.statistics, by)
    assert max(shown[1:]) == 10
    assert len(parts) == len(whole) == sum(isinstance(m, RecastBatchNorm2d) for m in net.modules())
    for found, wanted in zip(parts, whole, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)
    with net.statistics.again(whole, torch.ones(10)):
        torch.testing.assert_close(some, net.features(by[:10]))
    assert torch.equal(net.features(by), net.features(by))  # the switch is off again


def test_statistics_adopted_in_parts_are_those_of_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = pictures()
    pixels = Preprocess(SIZE)(images).double()
    once, parts = resnet().double().eval(), resnet().double().eval()
    assert adopt_statistics(once, pixels)
    monkeypatch.setattr(statistics, "_NUMBERS_A_PASS", 10 * pixels[:1].numel())
    assert adopt_statistics(parts, pixels)
    for name, wanted in once.state_dict().items():
        if "num_batches" not in name:
            torch.testing.assert_close(parts.state_dict()[name], wanted, rtol=1e-6, atol=1e-7)
    assert not parts.training
    assert not any(module._forward_pre_hooks for module in parts.modules())


def test_early_norms_take_a_client_s_own_statistics_and_the_others_keep_theirs() -> None:
    model = resnet().eval()
    names = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert early_norms(model) == names[: (len(names) + 1) // 2]
    means = {f"{name}.running_mean": name for name in names}
    before = {key: t.clone() for key, t in model.named_buffers() if key in means}
    images, _ = pictures()
    assert adopt_statistics(model, Preprocess(SIZE)(images))
    after = dict(model.named_buffers())
    moved = [means[key] for key in before if not torch.equal(after[key], before[key])]
    assert moved == early_norms(model)
    switched = own_statistics(model)
    on = [
        name
        for name, m in model.named_modules()
        if isinstance(m, RecastBatchNorm2d) and m.statistics is switched
    ]
    assert on == names[: (len(names) + 1) // 2] == early_norms(model)


def test_own_statistics_serve_a_client_that_has_images_of_two_classes_alone() -> None:
    loaded = load_backbone("digits_resnet20")
    data = load_dataset(parse_task("digits[50%:]+contrast:4"), loaded.preprocess.size)
    mine = torch.isin(torch.from_numpy(data.y_test), torch.tensor([3, 7]))
    images = loaded.preprocess(torch.from_numpy(data.x_test)[mine])
    labels = torch.from_numpy(data.y_test)[mine]
    model = loaded.model.eval()
    deployed = float((model(images).argmax(1) == labels).float().mean())
    assert adopt_statistics(model, images[::2])
    own = float((model(images[1::2]).argmax(1) == labels[1::2]).float().mean())
    assert deployed < 0.2
    assert own > 0.8  # with those of all norms: less than half
