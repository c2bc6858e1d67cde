"""Long work says how far it is, and ends at its next batch when it is told to."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torchvision.models import VisionTransformer

from recast_core import RecastConfig, attach, mimic
from recast_core.folded import BankFold, FoldedClient, How, ImageStore, split_model, train
from recast_core.folded.threads import on_each_core
from recast_core.objectives import SplitRidge
from recast_core.pulse import Abandoned, advance, begin, ending_with, listening
from recast_core.recipe import Recipe


@dataclass
class Heard:
    told: list[Any] = field(default_factory=list)

    def about(self, task: str, round_: int) -> None:
        self.told.append((task, round_))

    def began(self, what: str, images: int) -> None:
        self.told.append((what, images))

    def advanced(self, images: int) -> None:
        self.told.append(images)


def test_a_listener_hears_while_it_listens_and_not_after() -> None:
    heard = Heard()
    with listening(heard):
        begin("training", 5)
        advance(5)
    advance(7)
    assert heard.told == [("training", 5), 5]


def test_a_thread_that_was_told_to_end_ends_at_its_next_batch() -> None:
    stop = threading.Event()
    with ending_with(stop):
        advance(1)
        stop.set()
        with pytest.raises(Abandoned):
            advance(1)
    advance(1)


def test_when_one_item_fails_the_others_end_at_their_next_batch() -> None:
    began, abandoned = threading.Event(), threading.Event()

    def work(_: None, item: int) -> None:
        if item == 0:
            assert began.wait(600)
            raise KeyboardInterrupt
        try:
            while True:
                advance(1)
                began.set()
        except Abandoned:
            abandoned.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        list(on_each_core([0, 1], 2, lambda: None, work))
    assert abandoned.is_set()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_shows_each_labelled_image_once_an_epoch(workers: int) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(8, 4, 3, 2, 16, 32, num_classes=2)
    net = attach(model, mimic(model, RecastConfig("mlp")))
    split = split_model(net, 8)
    images, labels = torch.randn(21, 3, 8, 8), torch.arange(21) % 2
    store = ImageStore(images, lambda x: x, split.prefix, torch.device("cpu"))
    clients = [FoldedClient(r, labels[r], i) for i, r in enumerate(torch.arange(21).split(7))]
    heard, recipe = Heard(), Recipe(epochs=3, batch=4)
    with listening(heard):
        train(BankFold(split), store, clients, SplitRidge(2), recipe, how=How(workers=workers))
    assert sum(one for one in heard.told if isinstance(one, int)) == 3 * 21
