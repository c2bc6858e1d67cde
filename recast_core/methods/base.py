"""The protocol of a method, and the model that it prepares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.methods.edits import Edits
from recast_core.methods.parts import CoefficientPart, Part
from recast_core.methods.plain import PlainModel
from recast_core.model import RecastModel


class Method(ABC):
    """What trains of a model for a task, and what of that is sent.

    Attributes:
        name: as the command line and reports call it.
        learning_rate: a customary AdamW step for what it trains; a place to start, not a tuned
            value.
        foldable: few enough numbers differ between clients that many can train as one batch.
    """

    name: ClassVar[str]
    learning_rate: ClassVar[float]
    foldable: ClassVar[bool] = False

    @classmethod
    def parse(cls, settings: str, target: str) -> Self:
        """The method of a specification ``NAME`` or ``NAME:SETTINGS``.

        Args:
            settings: what follows the name; empty for the usual ones.
            target: the run's, for a method whose settings do not say.

        Raises:
            RecastError: settings that the method does not have.
        """
        if settings:
            raise RecastError(f"method {cls.name} has no settings, {settings!r} is too much")
        return cls()

    @property
    def canonical(self) -> str:
        """The one specification, with everything that the method depends on."""
        return self.name

    @abstractmethod
    def prepare(self, model: nn.Module) -> MethodModel:
        """Make ``model`` trainable by this method, in place.

        Args:
            model: a backbone, or an attached ``RecastModel``, whose coefficients then train and
                are sent too.

        Raises:
            RecastError: the method finds nothing in ``model`` that it could train.
        """


class MethodModel(nn.Module):
    """A model prepared by a method: frozen but for ``trainable()``, in evaluation mode.

    The head is not part of it: how a head is learned and what it sends is a matter of
    ``recast_core.heads``. At the start the logits are those of the model that was prepared.

    Attributes:
        net: what was prepared: a ``RecastModel``, or a backbone apart from its classifier.
    """

    net: RecastModel | PlainModel

    def __init__(
        self, method: str, net: RecastModel | PlainModel, edits: Edits, parts: Sequence[Part]
    ) -> None:
        super().__init__()
        self.net = net
        self._method = method
        self._edits = edits
        coefficients = [CoefficientPart(net.coefficients)] if isinstance(net, RecastModel) else []
        self._parts: list[Part] = [*coefficients, *parts]
        for parameter in self.trainable().values():
            parameter.requires_grad_(True)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, C]`` of images ``[N, 3, H, W]``."""
        logits: Tensor = self.net(images)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Features ``[N, d]``: the input of the classifier."""
        return self.net.features(images)

    @property
    def head(self) -> nn.Module:
        """The classifier that ``forward`` uses; assign ``net.head`` to change it."""
        return self.net.head

    def trainable(self) -> dict[str, nn.Parameter]:
        """What an optimizer is to be given, by name; empty where only a head is learned."""
        return {name: p for part in self._parts for name, p in part.trainable().items()}

    @property
    def trained_count(self) -> int:
        """How many numbers train."""
        return sum(parameter.numel() for parameter in self.trainable().values())

    @property
    def sent_count(self) -> int:
        """How many numbers are sent."""
        return sum(part.count for part in self._parts)

    @property
    def sent_bytes(self) -> int:
        """The bytes of ``encode()``: float32 numbers, but one bit for each element of a mask."""
        return sum(-(-part.count * part.bits // 8) for part in self._parts)

    def sent_vector(self) -> Tensor:
        """What is sent, as a detached float32 copy ``[sent_count]``."""
        parts = [part.sent() for part in self._parts]
        return torch.cat(parts) if parts else torch.empty(0)

    def load_vector(self, vector: Tensor) -> None:
        """Continue from a vector that was sent, or from a mean of such.

        Args:
            vector: ``[sent_count]``.

        Raises:
            RecastError: another length, or numbers that are not finite.
        """
        if tuple(vector.shape) != (self.sent_count,):
            raise RecastError(
                f"{self._method} takes a vector of {self.sent_count} numbers, this one has shape "
                f"{list(vector.shape)}: prepare the same backbone with the same settings"
            )
        if not bool(torch.isfinite(vector).all()):
            raise RecastError(
                f"the vector for {self._method} holds NaN or infinity: take the last round's"
            )
        pieces = vector.detach().split([part.count for part in self._parts])
        for part, piece in zip(self._parts, pieces, strict=True):
            part.load(piece)

    def encode(self) -> bytes:
        """What is sent as bytes: little-endian float32, masks packed to bits."""
        return b"".join(_pack(part.sent(), part.bits) for part in self._parts)

    def decode(self, content: bytes) -> Tensor:
        """The vector in ``encode()``'s bytes.

        Raises:
            RecastError: another number of bytes.
        """
        if len(content) != self.sent_bytes:
            raise RecastError(
                f"{self._method} takes {self.sent_bytes} bytes, these are {len(content)}: prepare "
                "the same backbone with the same settings"
            )
        vectors, start = [torch.empty(0)], 0
        for part in self._parts:
            stop = start + -(-part.count * part.bits // 8)
            vectors.append(_unpack(content[start:stop], part.count, part.bits))
            start = stop
        return torch.cat(vectors)

    def describe(self) -> Mapping[str, str | int]:
        """Method, what trains and what is sent, as plain values."""
        return {
            "method": self._method,
            "recast": int(isinstance(self.net, RecastModel)),
            "trained": self.trained_count,
            "sent": self.sent_count,
            "sent_bytes": self.sent_bytes,
        }

    def extra_repr(self) -> str:
        """The description in a line."""
        return ", ".join(f"{key}={value}" for key, value in self.describe().items())

    def merge(self) -> nn.Module:
        """The model with everything that folds into weights written there; this is used up.

        AdaptFormer and CLR add layers that no weight can absorb: those stay in the result.

        Raises:
            RecastError: weights that are not finite.
        """
        return self.net.merge()

    def remove(self) -> RecastModel | PlainModel:
        """Take the method off again; returns the model as it was, its coefficients apart."""
        for parameter in self.trainable().values():
            parameter.requires_grad_(False)
        self._edits.undo()
        if isinstance(self.net, RecastModel):
            self.net.coefficients.flat.requires_grad_(True)
        self._parts = self._parts[:1] if isinstance(self.net, RecastModel) else []
        return self.net


def _pack(vector: Tensor, bits: int) -> bytes:
    array = vector.cpu().numpy()
    if bits == 1:
        return np.packbits(array > 0.5, bitorder="little").tobytes()
    return bytes(array.astype("<f4").tobytes())


def _unpack(content: bytes, count: int, bits: int) -> Tensor:
    if bits == 1:
        ones = np.unpackbits(np.frombuffer(content, np.uint8), count=count, bitorder="little")
        return torch.from_numpy(ones.astype(np.float32))
    return torch.from_numpy(np.frombuffer(content, "<f4").astype(np.float32))
