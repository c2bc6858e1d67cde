"""Images that stay where they are: clients hold row numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recast_core.folded.threads import on_each_core
from recast_core.pulse import advance

_BATCH = 64


class ImageStore:
    """All images of a task on one device, once, and what the frozen layers make of them.

    ``inputs`` gives what the suffix of a ``SplitModel`` takes. Each image goes through the frozen
    prefix once if all results fit into ``memory``; else the prepared pixels are kept if these fit;
    else every look-up prepares its images anew.

    Attributes:
        images: uint8 ``[N, H, W]`` or ``[N, H, W, C]``, or whatever ``prepare`` takes.
    """

    def __init__(
        self,
        images: Tensor,
        prepare: Callable[[Tensor], Tensor],
        prefix: nn.Module | None,
        device: torch.device,
        memory: int | None = None,
    ) -> None:
        """Put the images on ``device``.

        Args:
            images: on any device.
            prepare: from images to float32 ``[n, 3, h, w]``.
            prefix: of the split model.
            device: of the model.
            memory: bytes for results; a gibibyte on a CPU, a quarter of what is free on CUDA.
        """
        self.images = images.to(device)
        self._prepare = prepare
        self._prefix = prefix
        self._device = device
        self._memory = _default_memory(device) if memory is None else memory
        self._kept: Tensor | None = None
        self._through = False
        # Channels lie last on a CPU: convolutions of few channels take two thirds of the time.
        self._last = False
        self._have = torch.zeros(len(images), dtype=torch.bool)
        self._decided = False
        self._bytes_each = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def bytes(self) -> int:
        """What the store holds on the device."""
        kept = self._kept
        held = 0 if kept is None else kept.numel() * kept.element_size()
        return held + self.images.numel() * self.images.element_size()

    @property
    def prepared(self) -> int:
        """For how many images it has been computed what ``inputs`` is asked for."""
        return int(self._have.sum())

    @property
    def input_bytes(self) -> int:
        """What one image takes as the suffix's input, or as prepared pixels if these are kept."""
        self._decide()
        return self._bytes_each

    @torch.no_grad()
    def ensure(self, rows: Tensor, workers: int = 0) -> None:
        """Compute now what ``inputs`` will be asked for.

        Args:
            rows: int64 on the CPU.
            workers: threads on a CPU; see ``train``.
        """
        self._decide()
        if self._kept is None:
            return
        wanted = torch.zeros_like(self._have)
        wanted[rows] = True
        missing = (wanted & ~self._have).nonzero().squeeze(1)
        if not len(missing):
            return
        threads = workers if self._device.type == "cpu" else 0
        for _ in on_each_core(
            missing.split(_BATCH), threads, lambda: None, lambda _, part: self._keep(part)
        ):
            pass
        self._have[missing] = True

    @torch.no_grad()
    def inputs(self, rows: Tensor) -> Tensor:
        """The suffix's input of ``rows`` (int64, on the device), which must be ensured."""
        if self._kept is None:
            return self._lie(self._compute(rows, True))
        kept = self._kept[rows]
        if self._last:
            kept = kept.movedim(-1, 1)
        if self._through or self._prefix is None:
            return kept
        through: Tensor = self._prefix(kept)
        return through

    def _compute(self, rows: Tensor, through: bool) -> Tensor:
        pixels = self._prepare(self.images[rows])
        if not through or self._prefix is None:
            return pixels
        result: Tensor = self._prefix(pixels)
        return result

    @torch.no_grad()
    def _keep(self, rows: Tensor) -> None:
        assert self._kept is not None
        where = rows.to(self._device)
        found = self._compute(where, self._through)
        self._kept[where] = found.movedim(1, -1) if self._last else found
        advance(0)  # Preparing is not the work itself, but it can be told to end.

    def _lie(self, x: Tensor) -> Tensor:
        if self._device.type != "cpu" or x.dim() != 4:
            return x
        return x.contiguous(memory_format=torch.channels_last)

    def _decide(self) -> None:
        if self._decided:
            return
        self._decided = True
        if not len(self):
            return
        first = torch.zeros(1, dtype=torch.int64, device=self._device)
        for through in (True, False):
            one = self._compute(first, through)
            self._bytes_each = one.numel() * one.element_size()
            if self._bytes_each * len(self) <= self._memory:
                self._last = self._device.type == "cpu" and one.dim() == 4
                shape = (one.movedim(1, -1) if self._last else one).shape[1:]
                # NaN: what was not computed must not pass for an image.
                self._kept = one.new_full((len(self), *shape), float("nan"))
                self._through = through
                return


def _default_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    return 1 << 30
