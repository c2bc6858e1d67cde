"""Parts of a run that are given as objects: an aggregation, a method, a head, a source, a bank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import recast
from recast_core.backbones import load_backbone
from recast_core.heads import HeadKind
from recast_core.heads.local import LocalRidge
from recast_core.methods import Lora, NormAffine
from recast_core.settings import Settings
from recast_core.sources import Source

Tiny = Callable[..., Settings]
Vector = NDArray[np.float32]


@pytest.fixture
def go(tiny: Tiny, tmp_path: Path) -> Callable[..., recast.Run]:
    def run(name: str = "run", **given: Any) -> recast.Run:
        settings = tiny(run_dir=str(tmp_path / name))
        values = {field.name: getattr(settings, field.name) for field in fields(settings)}
        return recast.simulate(clients=2, **(values | given))

    return run


def vectors(run: recast.Run) -> list[Vector]:
    found: list[Vector] = []
    for task in run.tasks["name"]:
        found.append(run.model(task).coefficients.sent().numpy())
    return found


def test_an_aggregation_is_used_and_may_be_defined_again(go: Callable[..., recast.Run]) -> None:
    def still(start: Vector, contributions: Sequence[recast.Contribution]) -> Vector:
        return start.copy()

    first = go("one", aggregation=still)
    begun = first.bank.initial_vector.numpy()
    assert all(np.array_equal(vector, begun) for vector in vectors(first))
    assert first.settings["aggregation"] == "still"

    def still(start: Vector, contributions: Sequence[recast.Contribution]) -> Vector:  # type: ignore[no-redef]
        return start + np.float32(1)

    assert not np.array_equal(vectors(go("two", aggregation=still))[0], begun)
    still.__name__ = "mean"
    with pytest.raises(recast.RecastError, match="is registered already"):
        go("three", aggregation=still)


def test_a_method_may_be_a_class_or_an_object(go: Callable[..., recast.Run], tiny: Tiny) -> None:
    assert go("one", method=NormAffine).settings["method"] == "norm-affine"
    run = go("two", method=Lora.parse("2", tiny().target))
    assert run.settings["method"].startswith("lora:2")
    with pytest.raises(recast.RecastError, match="which has no bank"):
        _ = run.bank


def test_what_is_given_to_the_wrong_call_or_is_no_callback_is_one_line() -> None:
    class Told(recast.Callback):
        pass

    with pytest.raises(recast.RecastError, match="'clients' is for its simulate"):
        recast.Federation("digits", clients=3)
    with pytest.raises(recast.RecastError, match="'callbacks' is for the federation"):
        recast.Federation("digits").simulate(2, callbacks=[Told()])
    with pytest.raises(recast.RecastError, match=r"Told is a class: give Told\(\) among"):
        recast.Federation("digits", callbacks=[Told])  # type: ignore[list-item]
    with pytest.raises(recast.RecastError, match=r"int is no callback: .*on_round="):
        recast.Federation("digits", callbacks=[3])  # type: ignore[list-item]


def test_a_head_that_does_not_say_what_it_is_is_one_line(go: Callable[..., recast.Run]) -> None:
    class Nearest(HeadKind):
        name = "nearest"  # type: ignore[assignment]

    for head in (Nearest, type("Nameless", (LocalRidge,), {"name": "", "code": 201})):
        with pytest.raises(recast.RecastError, match="inherit StayingHead or TravellingHead"):
            go(head=head)


@dataclass(frozen=True)
class Own(LocalRidge):
    """A ridge head of another name, that counts its fits."""

    name: ClassVar[str] = "own-ridge"
    code: ClassVar[int] = 211
    fits: ClassVar[list[int]] = []

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> torch.nn.Linear:
        self.fits.append(len(features))
        return super().fit(features, labels, classes)


def test_a_head_may_be_an_object(go: Callable[..., recast.Run]) -> None:
    Own.fits.clear()
    run = go(head=Own)
    assert run.settings["head"] == "own-ridge"
    assert Own.fits


class TheLayersThemselves(Source):
    """Each layer of a group is a template."""

    def __call__(
        self, weights: Tensor, templates: int | None, random: np.random.Philox
    ) -> tuple[Tensor, Tensor]:
        return weights.clone(), torch.eye(len(weights))


def test_a_source_and_a_bank_may_be_objects(go: Callable[..., recast.Run], tiny: Tiny) -> None:
    run = go("one", source=TheLayersThemselves)
    assert run.settings["source"] == "the-layers-themselves"

    settings = tiny()
    bank = recast.mimic(
        load_backbone(settings.backbone).model,
        recast.RecastConfig(target=settings.target, basis="orthonormal"),
    )
    own = go("two", bank=bank)
    assert own.bank.sha256 == bank.sha256 != run.bank.sha256


def test_an_object_that_rays_workers_would_lack_is_refused(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.session.simulation.check_ray", lambda: None)
    federation = recast.Federation(head=Own)
    with pytest.raises(recast.RecastError, match="head is an object, which Ray's workers lack"):
        federation.simulate(2, "ray")
