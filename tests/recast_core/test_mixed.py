"""A batch of several tasks in one forward pass equals the rows one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import VisionTransformer, resnet18

from recast_core import RecastConfig, RecastError, RecastModel, TaskLibrary, attach, mimic
from recast_core.library.mixed import block_size


def vit() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(16, 8, 4, 2, 16, 32, num_classes=7)


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return resnet18(num_classes=7)


def prepared(model: nn.Module, config: RecastConfig, width: int) -> tuple[RecastModel, TaskLibrary]:
    net = attach(model, mimic(model, config))
    tasks = TaskLibrary(net.bank)
    for index, name in enumerate("abc"):
        vector = net.bank.initial_vector
        tasks.add(name, vector + 0.1 * torch.randn(len(vector)), nn.Linear(width, 2 + index))
    return net, tasks


def images(rows: int) -> Tensor:
    return torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(1))


CASES = {
    "attn": (vit, RecastConfig(target="attn", sets=2), 16),
    "mlp-residual": (vit, RecastConfig(target="mlp", residual=True, templates=2), 16),
    "attn+mlp": (vit, RecastConfig(target="attn+mlp"), 16),
    "conv": (resnet, RecastConfig(target="conv"), 512),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("order", ["abcabcabc", "aaaaaaaabc", "a", "cab"])
@torch.no_grad()
def test_a_mixed_batch_equals_its_rows_one_by_one(case: str, order: str) -> None:
    make, config, width = CASES[case]
    net, tasks = prepared(make(), config, width)
    batch = images(len(order))
    mixed = tasks.mixed(net, batch, list(order))
    for image, name, logits in zip(batch, order, mixed, strict=True):
        tasks.activate(net, name)
        torch.testing.assert_close(logits, net(image[None])[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_mixed_batch_is_one_forward_pass_and_leaves_the_model_as_it_was() -> None:
    net, tasks = prepared(vit(), RecastConfig(sets=2), 16)
    tasks.activate(net, "b")
    net.coefficients.flat += 0.01 * torch.randn_like(net.coefficients.flat)
    net.coefficients.flat.grad = torch.ones_like(net.coefficients.flat)
    flat, before = net.coefficients.flat.clone(), net(images(3))
    calls: list[int] = []
    handle = net.backbone.register_forward_hook(lambda m, i, o: calls.append(len(o)))
    tasks.mixed(net, images(9), list("abcabcabc"))
    handle.remove()
    assert calls == [9]
    assert torch.equal(net.coefficients.flat, flat)
    assert net.coefficients.flat.grad is not None
    assert torch.equal(net(images(3)), before)


def test_a_mixed_batch_that_fails_leaves_the_model_as_it_was() -> None:
    net, tasks = prepared(vit(), RecastConfig(), 16)
    flat = net.coefficients.flat.detach().clone()
    with pytest.raises(AssertionError):
        tasks.mixed(net, torch.randn(2, 3, 8, 8), ["a", "b"])
    assert torch.equal(net.coefficients.flat.detach(), flat)


def test_a_row_without_a_task_is_refused() -> None:
    net, tasks = prepared(vit(), RecastConfig(), 16)
    with pytest.raises(RecastError, match="give one a row"):
        tasks.mixed(net, images(3), ["a", "b"])
    with pytest.raises(RecastError, match="no task 'x'"):
        tasks.mixed(net, images(1), ["x"])


def test_an_empty_batch_has_no_logits() -> None:
    net, tasks = prepared(vit(), RecastConfig(), 16)
    assert tasks.mixed(net, images(0), []) == []


@given(st.lists(st.integers(1, 64), min_size=1, max_size=16))
def test_blocks_never_cost_more_than_padding_to_the_longest_or_a_block_a_row(
    counts: list[int],
) -> None:
    size = block_size(counts)
    blocks = sum(-(-count // size) for count in counts)
    assert 1 <= size <= max(counts)
    assert blocks * size + blocks <= len(counts) * (max(counts) + 1)
    assert blocks * size + blocks <= 2 * sum(counts)


def test_equal_tasks_get_a_block_each() -> None:
    assert block_size([8] * 8) == 8
