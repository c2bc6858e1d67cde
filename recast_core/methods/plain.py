"""A backbone apart from its classifier, without RECAST."""

from __future__ import annotations

from torch import Tensor, nn

from recast_core.classifier import require_head
from recast_core.frozen import freeze_statistics, thaw_statistics
from recast_core.layers.statistics import BatchStatistics
from recast_core.model import merge_layers, replace_module
from recast_core.trial import output_tensor


class PlainModel(nn.Module):
    """What ``RecastModel`` is to an attached backbone, for one with no bank.

    Attributes:
        backbone: changed in place: its classifier is taken out, everything is frozen.
        head: the classifier.
        statistics: of the early BatchNorms, after ``recast_core.statistics.own_statistics``.
    """

    def __init__(self, backbone: nn.Module) -> None:
        """Take ``backbone`` apart.

        Raises:
            RecastError: it has no classifier that could be found.
        """
        super().__init__()
        name = require_head(
            backbone,
            "the backbone",
            "let its forward return the logits of a Linear layer, or attach a bank with "
            "attach(model, bank, head=NAME)",
        )
        self.backbone = backbone.requires_grad_(False).eval()
        self.statistics: BatchStatistics | None = None
        self.head: nn.Module = backbone.get_submodule(name)
        self._head_name = name
        replace_module(backbone, name, nn.Identity())
        freeze_statistics(backbone)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, C]`` of images ``[N, 3, H, W]``."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Features ``[N, d]``: the input of the classifier."""
        return output_tensor(self.backbone(images))

    def merge(self) -> nn.Module:
        """The backbone with what was learned in its weights, and the head in its place.

        Raises:
            RecastError: weights that are not finite.
        """
        merge_layers(self.backbone)
        thaw_statistics(self.backbone)
        replace_module(self.backbone, self._head_name, self.head)
        return self.backbone
