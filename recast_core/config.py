"""What to rewrite in a backbone, and how: the one configuration object of a bank."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from recast_core.choices import unknown
from recast_core.errors import RecastError
from recast_core.sources import source_kind

Basis = Literal["own", "orthonormal"]


@dataclass(frozen=True)
class RecastConfig:
    """Which modules become targets, how they are grouped, and how many templates a group has.

    Attributes:
        target: a preset (``attn``, ``mlp``, ``attn+mlp``, ``conv``) or patterns over module names
            (``fnmatch`` syntax, e.g. ``("encoder.layers.*.mlp.0",)``). Modules that one pattern
            matches and whose weights have one shape form a bucket.
        groups: consecutive groups into which each bucket is divided; ``None`` is one.
        templates: templates per group; ``None`` is one per layer, which is exact.
        sets: coefficient sets K (paper section 3.1). Their mean is the same function, so K times
            as many numbers are trained as are sent.
        basis: ``own`` takes the layers' own weights as templates (coefficients start as the
            identity); ``orthonormal`` the leading singular directions of the group, scaled to the
            root mean square norm of its layers so that coefficients are of order one.
        residual: write ``W = W0 + sum_i (c_i - c0_i) T_i``, exact at the start for any bank.
        base_in_bank: carry ``W0`` in the bank instead of taking it from the backbone.
        source: where templates come from, one of ``recast_core.sources.SOURCES``; some need the
            residual form.
        seed: of the sources that draw random numbers; 8 bytes.
    """

    target: str | tuple[str, ...] = "mlp"
    groups: int | None = None
    templates: int | None = None
    sets: int = 1
    basis: Basis = "own"
    residual: bool = False
    base_in_bank: bool = False
    source: str = "closed-form"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("groups", "templates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecastError(f"{name} is {value}: give a number of at least 1")
        if self.sets < 1:
            raise RecastError(f"sets is {self.sets}: give a number of at least 1")
        if self.basis not in ("own", "orthonormal"):
            raise RecastError(f"unknown basis {self.basis!r}: choose own or orthonormal")
        if self.base_in_bank and not self.residual:
            raise RecastError("base_in_bank needs the residual form: set residual=True as well")
        if source_kind(self.source).residual and not self.residual:
            raise RecastError(
                f"source {self.source} needs the residual form: set residual=True as well"
            )
        if not 0 <= self.seed < 2**64:
            raise RecastError(f"seed is {self.seed}: give a whole number of at most 8 bytes")

    def as_dict(self) -> dict[str, object]:
        """The configuration as plain JSON values."""
        return asdict(self)

    @classmethod
    def preset(cls, name: str) -> RecastConfig:
        """A variant of the paper (section 4 and its code), exact at the start.

        ======================  =======================================  ==========  =========
        name                    for                                      trained     sent
        ======================  =======================================  ==========  =========
        ``recast-att``          12-layer ViT, 6 groups of 2 layers       48          24
        ``recast-mlp``          the same, fc1 and fc2                    96          48
        ``recast-att+mlp``      both                                     144         72
        ``recast-resnet``       ResNet-34, blocks 1.. of each stage      168         84
        ======================  =======================================  ==========  =========

        All have K = 2 sets and as many templates per group as the group has layers: 2 in a ViT of
        12 layers, the stage's blocks less one in a ResNet.

        Raises:
            RecastError: another name.
        """
        if name not in _PAPER:
            raise RecastError(unknown("preset", name, [*_PAPER]))
        return _PAPER[name]


_PAPER = {
    "recast-att": RecastConfig("attn", groups=6, sets=2),
    "recast-mlp": RecastConfig("mlp", groups=6, sets=2),
    "recast-att+mlp": RecastConfig("attn+mlp", groups=6, sets=2),
    # Not conv3 of bottleneck blocks: the paper's ResNet-34 has none.
    "recast-resnet": RecastConfig(("*layer[1-9].[1-9]*.conv1", "*layer[1-9].[1-9]*.conv2"), sets=2),
}
PAPER_PRESETS = tuple(_PAPER)
