"""Shift banks: sections in model order, principal directions in spreads, small, exact starts."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from recast_core import RecastError, attach
from recast_core.backbones.architectures import build, parse_architecture
from recast_core.packed import Packed
from recast_core.sources.packing import pack_directions
from recast_core.sources.shift_bank import (
    Directions,
    divide,
    member_tensors,
    principal_directions,
    shift_bank,
)


def network(text: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = build(parse_architecture(text))[0].eval()
    for name, parameter in model.named_parameters():
        if name.startswith("heads."):  # torchvision starts it at zero
            nn.init.normal_(parameter)
    return model


RESNET20 = "cifar_resnet(depth=20)"
RESNET34 = "resnet34(small_stem=1,num_classes=4)"
VIT = (
    "vit(image_size=16,patch_size=8,num_layers=4,num_heads=2,hidden_dim=16,mlp_dim=32,"
    "num_classes=4)"
)


def sources(model: nn.Module, count: int, seed: int = 0, rank: int = 3) -> list[dict[str, Tensor]]:
    """Differences that share a few directions, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    names = member_tensors(model)
    basis = {n: torch.randn(rank, *parameters[n].shape, generator=generator) for n in names}
    found = []
    for _ in range(count):
        at = torch.randn(rank, generator=generator) + 0.5
        found.append(
            {
                n: 1e-3 * torch.tensordot(at, basis[n], 1)
                + 1e-5 * torch.randn(parameters[n].shape, generator=generator)
                for n in names
            }
        )
    return found


@pytest.mark.parametrize(
    ("text", "count", "starts"),
    [
        (RESNET34, 4, ["conv1", "layer2.0", "layer3.0", "layer4.0"]),
        (RESNET34, 2, ["conv1", "layer3.0"]),
        (RESNET20, 4, ["conv1", "layer1.0", "layer2.0", "layer3.0"]),
        (RESNET20, 3, ["conv1", "layer2.0", "layer3.0"]),
        (RESNET20, 9, ["conv1", "layer1.1", "layer1.2", "layer2.0"]),
        (VIT, 2, ["conv_proj", "encoder.layers.encoder_layer_2."]),
        (VIT, 4, ["conv_proj", "encoder.layers.encoder_layer_1."]),
        (VIT, 1, ["conv_proj"]),
    ],
)
def test_sections_are_stages_or_equal_runs_of_blocks(
    text: str, count: int, starts: list[str]
) -> None:
    names = member_tensors(network(text))
    sections = divide(names, count)
    assert tuple(name for section in sections for name in section) == names
    assert len(sections) == count
    for section, start in zip(sections, starts, strict=False):
        assert section[0].startswith(start)


@pytest.mark.parametrize("count", [0, 11])
def test_more_sections_than_blocks_are_refused(count: int) -> None:
    with pytest.raises(RecastError, match="section"):
        divide(member_tensors(network(RESNET20)), count)


def test_all_but_classifier_statistics_and_embeddings_move() -> None:
    assert not [n for n in member_tensors(network(RESNET20)) if "running" in n or "linear" in n]
    model = network(VIT)
    left = set(dict(model.named_parameters())) - set(member_tensors(model))
    assert left == {
        "class_token",
        "encoder.pos_embedding",
        "heads.head.weight",
        "heads.head.bias",
    }


def test_directions_are_the_singular_ones_in_spreads() -> None:
    model = network(RESNET20)
    found = sources(model, 6)
    sections = divide(member_tensors(model), 3)
    made = principal_directions(found, sections, 4)
    for index, names in enumerate(sections):
        matrix = torch.stack([torch.cat([d[n].flatten() for n in names]) for d in found]).double()
        _, values, rows = torch.linalg.svd(matrix, full_matrices=False)
        flat = torch.cat([made.stacks[n].flatten(1) for n in names], 1).double()
        spread = values[:4] / math.sqrt(6)
        torch.testing.assert_close(made.spread[index], spread, rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(flat.norm(dim=1), spread, rtol=1e-4, atol=1e-9)
        cosine = torch.cosine_similarity(flat[:3], rows[:3]).abs()
        torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-4, atol=0)
        coordinates = matrix @ flat.T / spread.square()
        assert bool((coordinates[:, :3].mean(0) > 0).all())
        rms = coordinates[:, :3].square().mean(0).sqrt()
        torch.testing.assert_close(rms, torch.ones_like(rms), rtol=1e-4, atol=0)


def test_sources_lie_in_the_span_of_as_many_directions() -> None:
    model = network(VIT)
    found = sources(model, 3)
    made = principal_directions(found, divide(member_tensors(model), 1), 3)
    flat = torch.cat([s.flatten(1) for s in made.stacks.values()], 1).double()
    for source in found:
        wanted = torch.cat([source[n].flatten() for n in made.stacks]).double()
        at = wanted @ flat.T / made.spread[0].square()
        assert float((at @ flat - wanted).norm() / wanted.norm()) < 1e-3


def test_fewer_sources_than_directions_are_refused() -> None:
    model = network(RESNET20)
    with pytest.raises(RecastError, match="5 directions from 4 source"):
        principal_directions(sources(model, 4), divide(member_tensors(model), 2), 5)


def test_a_source_that_diverged_or_is_another_network_is_refused() -> None:
    model = network(RESNET20)
    found = sources(model, 4)
    sections = divide(member_tensors(model), 2)
    found[2]["conv1.weight"][0, 0, 0, 0] = math.nan
    with pytest.raises(RecastError, match=r"conv1\.weight"):
        principal_directions(found, sections, 2)
    found[2]["conv1.weight"] = torch.zeros(3)
    with pytest.raises(RecastError, match="source 2"):
        principal_directions(found, sections, 2)


def directions(model: nn.Module, count: int, sections: int = 2) -> Directions:
    return principal_directions(
        sources(model, count + 2), divide(member_tensors(model), sections), count
    )


@pytest.mark.parametrize("text", [RESNET20, VIT])
@pytest.mark.parametrize("rank", [None, 4])
def test_a_bank_starts_at_the_backbone_and_moves_by_sections(text: str, rank: int | None) -> None:
    model = network(text)
    made = directions(model, 3)
    bank = shift_bank(model, made, rank=rank)
    assert bank.sent == 6
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        before = model(images)
        net = attach(copy.deepcopy(model), bank)
        assert torch.equal(net(images), before) or torch.allclose(net(images), before, rtol=1e-4)
        vector = torch.tensor([0.5, -1.0, 2.0, 1.0, 0.0, -0.5])
        net.coefficients.load(vector)
        moved = net(images)
        plain = copy.deepcopy(model)
        held = dict(plain.named_parameters())
        for group in bank.groups:
            row = vector.view(2, 3)[made.section_of[group.name]]
            held[group.name] += torch.tensordot(row, group.templates, 1)
        torch.testing.assert_close(moved, plain(images), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(moved, before, rtol=1e-3)
    assert torch.allclose(net.merge()(images), moved, rtol=1e-4, atol=1e-5)


def test_folded_clients_equal_single_ones() -> None:
    model = network(VIT)
    bank = shift_bank(model, directions(model, 2), rank=2)
    vectors = torch.randn(3, bank.sent)
    images = torch.randn(3, 2, 3, 16, 16)
    net = attach(copy.deepcopy(model), bank)
    with torch.no_grad():
        net.coefficients.load(vectors)
        together = net(images.flatten(0, 1)).unflatten(0, (3, 2))
        for client in range(3):
            alone = attach(copy.deepcopy(model), bank)
            alone.coefficients.load(vectors[client])
            torch.testing.assert_close(together[client], alone(images[client]))


def test_packing_shares_factors_within_the_bytes_of_separate_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(24, 9 * 32, generator=generator)
    mixing = (
        torch.randn(12, 32, 24, generator=generator) * torch.linspace(1, 0.1, 12)[:, None, None]
    )
    stack = (mixing @ basis).view(12, 32, 32, 3, 3) * 1e-3
    stack = stack + 1e-5 * torch.randn(stack.shape, generator=generator)
    rank, bits = 8, 4
    packed = pack_directions({"w": stack}, rank, bits)["w"]
    assert packed.rank
    assert len(packed.content) <= 12 * rank * (32 + 288) * bits / 8
    error = float((packed.templates() - stack).norm() / stack.norm())
    u, s, v = torch.linalg.svd(stack.flatten(2), full_matrices=False)
    separate = (u[..., :rank] * s[:, None, :rank]) @ v[:, :rank]
    assert error < 0.3 * float((separate - stack.flatten(2)).norm() / stack.norm())


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_more_bits_err_less(bits: int) -> None:
    torch.manual_seed(0)
    low = torch.randn(4, 16, 2) @ torch.randn(2, 40)

    def error(width: int) -> float:
        packed = pack_directions({"w": low}, 8, width)["w"]
        return float((packed.templates() - low).norm() / low.norm())

    assert error(bits) < 1.5 * 2.0 ** -(bits - 1)
    assert error(bits) < error(bits - 1)


def test_vectors_and_weights_without_room_are_written_directly() -> None:
    torch.manual_seed(0)
    packed = pack_directions(
        {"b": torch.randn(3, 10), "zero": torch.zeros(3, 4, 4), "small": torch.randn(3, 2, 3)}, 8, 4
    )
    assert [p.rank for p in packed.values()] == [0, 0, 0]
    assert [p.bits for p in packed.values()] == [8, 4, 4]
    assert not packed["zero"].templates().any()


def test_packing_is_repeatable() -> None:
    torch.manual_seed(0)
    stack = torch.randn(12, 64, 64, 3, 3) * 1e-3

    def made(seed: int) -> Packed:
        torch.manual_seed(seed)
        return pack_directions({"w": stack}, 1, 4)["w"]

    assert made(1).content == made(2).content


@pytest.mark.parametrize(("rank", "bits"), [(0, 4), (8, 1), (8, 9)])
def test_ranks_and_widths_that_cannot_be_are_refused(rank: int, bits: int) -> None:
    with pytest.raises(RecastError, match="give"):
        pack_directions({"w": torch.randn(2, 3, 4)}, rank, bits)
