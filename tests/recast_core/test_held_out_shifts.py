"""Trials of a shift bank: what is learned from never judges."""

from __future__ import annotations

import pytest
import torch

from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.sources.fine_tune import FineTuner
from recast_core.sources.held_out_shifts import Trial, held_out_gains
from recast_core.sources.shift_bank import (
    divide,
    member_tensors,
    principal_directions,
    shift_bank,
)


@pytest.mark.parametrize(("learn", "judged"), [(None, 12), (16, 8)])
def test_images_after_those_that_are_learned_from_judge(
    learn: int | None, judged: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = CifarResNet(8, 3).eval()
    names = member_tensors(net)
    tensors = dict(net.named_parameters())
    sources = [{n: 0.01 * torch.randn_like(tensors[n]) for n in names} for _ in range(3)]
    bank = shift_bank(net, principal_directions(sources, divide(names, 2), 2), rank=None)
    images, labels = torch.rand(24, 3, 8, 8), torch.arange(24) % 3
    seen = []

    def accuracy(self: FineTuner, judging: torch.Tensor, _: torch.Tensor) -> float:
        seen.append(judging)
        return 0.5

    monkeypatch.setattr(FineTuner, "accuracy", accuracy)
    monkeypatch.setattr("recast_core.sources.held_out_shifts._STEPS", 1)
    trial = Trial("none", lambda: images, labels, learn)
    held_out_gains(net, "fc", bank, [trial], 1e-3, torch.device("cpu"))
    assert len(seen) == 4
    assert all(torch.equal(each, images[-judged:]) for each in seen)
