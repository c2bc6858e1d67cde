"""What to rewrite in a backbone, and how: the one configuration object of a bank."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from recast_core.errors import RecastError

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
    """

    target: str | tuple[str, ...] = "mlp"
    groups: int | None = None
    templates: int | None = None
    sets: int = 1
    basis: Basis = "own"
    residual: bool = False
    base_in_bank: bool = False

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

    def as_dict(self) -> dict[str, object]:
        """The configuration as plain JSON values."""
        return asdict(self)
