"""Neural Mimicry with an encoder: a variational autoencoder of the layers' weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recast_core.sources.base import Source, count_of


@dataclass(frozen=True)
class Vae(Source):
    """The source ``vae``: an encoder reads the layers, decoders write templates and coefficients.

    After the paper's encoder variant of Neural Mimicry (section 3.2), kept small. A layer's weights
    are cut into chunks of ``width`` entries; one encoder for all chunks gives the mean and variance
    of a latent for each, the latents at one place of the L layers are mixed into n, and one
    decoder makes the chunk of each template from them. A second encoder reads a random sketch of
    each whole layer, and a decoder makes the layer's n coefficients from its latent. Trained
    together by AdamW on the reconstruction error plus ``kl`` times the divergence of both
    posteriors from a standard normal (Kingma and Welling 2014); the means make the bank.

    Attributes:
        steps: of AdamW.
        learning_rate: the first; it falls to zero along a half cosine.
        width: entries of a chunk, and numbers of its latent. Weights of trained layers look like
            noise, so a narrower latent loses what it leaves out.
        batch: chunk places per step.
        kl: weight of the divergence against the mean squared error.
    """

    steps: int = 600
    learning_rate: float = 1e-2
    width: int = 64
    batch: int = 256
    kl: float = 1e-6

    def __call__(
        self, weights: Tensor, templates: int | None, random: np.random.Philox
    ) -> tuple[Tensor, Tensor]:
        """See ``Source``."""
        layers, count = len(weights), count_of(templates, len(weights))
        seed = int(random.random_raw() >> np.uint64(1))
        generator = torch.Generator().manual_seed(seed)
        flat = weights.flatten(1)
        scale = flat.double().square().mean().sqrt().float().clamp_min(1e-30)
        size = flat.shape[1]
        places = -(-size // self.width)
        padded = nn.functional.pad(flat / scale, (0, places * self.width - size))
        chunks = padded.view(layers, places, self.width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = _Autoencoder(chunks, count)
        optimizer = torch.optim.AdamW(net.parameters(), lr=self.learning_rate, weight_decay=0.0)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        for _ in range(self.steps):
            chosen = torch.randint(places, (min(self.batch, places),), generator=generator)
            seen = chunks[:, chosen]
            stack, coefficients, divergence = net.sample(seen, generator)
            rebuilt = torch.einsum("ln,npw->lpw", coefficients, stack)
            loss = (rebuilt - seen).square().mean() + self.kl * divergence
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            decay.step()
        with torch.no_grad():
            stack, coefficients = net.means(chunks)
        made = stack.flatten(1)[:, :size] * scale
        return made.unflatten(1, weights.shape[1:]).contiguous(), coefficients


class _Autoencoder(nn.Module):
    """Two encoders and two decoders; chunks are ``[L, places, width]``."""

    def __init__(self, chunks: Tensor, count: int) -> None:
        super().__init__()
        layers, _, width = chunks.shape
        self.encode = nn.Linear(width, 2 * width)
        self.mix = nn.Parameter(torch.randn(count, layers) * layers**-0.5)
        self.decode = nn.Linear(width, width)
        self.encode_layer = nn.Linear(width, 2 * width)
        self.decode_layer = nn.Linear(width, count)
        sketch = chunks.flatten(1) @ torch.randn(chunks[0].numel(), width)
        self.register_buffer("sketch", sketch / sketch.square().mean().sqrt().clamp_min(1e-30))

    def _latents(self, chunks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance = self.encode(chunks).chunk(2, dim=-1)
        mean_l, variance_l = self.encode_layer(self.get_buffer("sketch")).chunk(2, dim=-1)
        # A start of small variance, or the first steps would fit noise.
        return mean, variance - 8.0, mean_l, variance_l - 8.0

    def _decoded(self, chunk_latent: Tensor, layer_latent: Tensor) -> tuple[Tensor, Tensor]:
        mixed = torch.einsum("nl,lpz->npz", self.mix, chunk_latent)
        return self.decode(mixed), self.decode_layer(layer_latent)

    def sample(self, chunks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Templates ``[n, places, width]``, coefficients ``[L, n]``, and the mean divergence."""
        mean, log_variance, mean_l, log_variance_l = self._latents(chunks)
        noise = torch.randn(mean.shape, generator=generator)
        noise_l = torch.randn(mean_l.shape, generator=generator)
        stack, coefficients = self._decoded(
            mean + noise * (log_variance / 2).exp(), mean_l + noise_l * (log_variance_l / 2).exp()
        )
        divergence = _divergence(mean, log_variance) + _divergence(mean_l, log_variance_l)
        return stack, coefficients, divergence

    def means(self, chunks: Tensor) -> tuple[Tensor, Tensor]:
        """Templates and coefficients of the posteriors' means."""
        mean, _, mean_l, _ = self._latents(chunks)
        return self._decoded(mean, mean_l)


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of ``N(mean, variance)`` from ``N(0, 1)``, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
