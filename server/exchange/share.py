"""What one node says that it has of a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """What one node has of one task: counts of images, and of classes in its training images.

    ``class_hash`` is that of the list of names that its class ids count in, 0 where it has none.
    """

    train_examples: int
    test_examples: int
    classes: int
    local_classes: int
    class_hash: int = 0

    @property
    def can_train(self) -> bool:
        """Whether there is something to tell apart."""
        return self.train_examples > 0 and self.local_classes > 1

    @property
    def can_evaluate(self) -> bool:
        """Whether a local head can be fitted and measured."""
        return self.can_train and self.test_examples > 0


def agreed_classes(shares: Iterable[Share]) -> int:
    """The number of classes that most nodes announce of a task; of two, the smaller."""
    counted = Counter(share.classes for share in shares)
    most = max(counted.values())
    return min(classes for classes, count in counted.items() if count == most)
