"""Methods and sources from outside the package are as good as its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recast_core import RecastConfig, RecastError, mimic
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.methods import (
    METHODS,
    Method,
    MethodModel,
    NormAffine,
    method,
    parse_method,
    register_method,
)
from recast_core.settings import Settings
from recast_core.sources import SOURCES, Source, register_source


class Biases(Method):
    """Norm affine at a rate of its own."""

    name: ClassVar[str] = "biases"
    learning_rate: ClassVar[float] = 0.5

    def __init__(self, rate: str = "1") -> None:
        self.rate = rate

    @classmethod
    def parse(cls, settings: str, target: str) -> Self:
        return cls(settings or "1")

    @property
    def canonical(self) -> str:
        return f"biases:{self.rate}"

    def prepare(self, model: nn.Module) -> MethodModel:
        return NormAffine().prepare(model)


class Ones(Source):
    """Constant templates."""

    residual: ClassVar[bool] = True
    derivable: ClassVar[bool] = True

    def __call__(
        self, weights: Tensor, templates: int | None, random: np.random.Philox
    ) -> tuple[Tensor, Tensor]:
        count = templates or 1
        return torch.ones(count, *weights.shape[1:]), torch.zeros(len(weights), count)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    before = dict(METHODS), dict(SOURCES)
    yield
    for table, kept in zip((METHODS, SOURCES), before, strict=True):
        table.clear()
        table.update(kept)  # type: ignore[arg-type]


def test_a_method_of_ones_own_can_be_named_in_settings() -> None:
    with pytest.raises(RecastError, match="unknown method 'biases'"):
        Settings(method="biases:7")
    register_method("biases", Biases)
    settings = Settings(method="biases:7")
    assert settings.canonical_method() == "biases:7"
    assert settings.hyperparameters().learning_rate == 0.5
    assert parse_method("biases").prepare(CifarResNet(8, 3)).sent_count > 0
    assert isinstance(method("biases"), Biases)


def test_a_source_of_ones_own_makes_banks_in_the_form_that_it_asks_for() -> None:
    with pytest.raises(RecastError, match="unknown source 'ones'"):
        Settings(source="ones")
    register_source("ones", Ones)
    with pytest.raises(RecastError, match="needs the residual form"):
        RecastConfig(source="ones")
    assert Settings(source="ones").recast().residual
    torch.manual_seed(0)
    bank = mimic(CifarResNet(14, 3), RecastConfig("conv", residual=True, source="ones"))
    assert bank.residual
    assert bank.meta["source"] == "ones"
    assert bool((bank.groups[0].templates == 1).all())


def test_names_are_taken_once() -> None:
    register_method("biases", Biases)
    register_method("biases", Biases)
    register_source("ones", Ones)
    register_source("ones", Ones)
    for name in ("lora", "head"):
        with pytest.raises(RecastError, match="there is a method"):
            register_method(name, Biases)
    with pytest.raises(RecastError, match="cannot name"):
        register_method("a:b", Biases)
    with pytest.raises(RecastError, match="there is a source"):
        register_source("seeded", Ones)


def test_specifications_have_one_form() -> None:
    for spec, target, form in (
        ("head", "conv", "head-only"),
        ("lora", "conv", "lora:4:conv"),
        ("lora:2", "mlp", "lora:2:mlp"),
        ("lora:2:attn", "conv", "lora:2:attn"),
    ):
        assert parse_method(spec, target).canonical == form
        assert parse_method(form).canonical == form
    for wrong in ("lora:x", "lora:0", "lora::attn", "full:3"):
        with pytest.raises(RecastError):
            parse_method(wrong)
