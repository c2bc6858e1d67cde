"""Networks as others write them, small: for what attaching takes and refuses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StandardisedConv2d(nn.Conv2d):
    """BiT and timm's ResNetV2: the weight is standardised on its way."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, [1, 2, 3], keepdim=True, unbiased=False)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class SameConv2d(nn.Conv2d):
    """TensorFlow's padding, inside forward."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 2, 0, 2)), self.weight, self.bias)


class CastingConv2d(nn.Conv2d):
    """What Conv2d.forward calls is overridden, forward is not."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return 2 * super()._conv_forward(x, weight, bias)


class LowRankLinear(nn.Linear):
    """loralib: a branch beside the weight."""

    def __init__(self, features: int) -> None:
        super().__init__(features, features)
        self.down = nn.Parameter(torch.randn(2, features))
        self.up = nn.Parameter(torch.randn(features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


class ComputedLinear(nn.Linear):
    """The weight is a property."""

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        if "raw" not in self._parameters:
            raise AttributeError("weight")
        return self._parameters["raw"].tanh()  # type: ignore[union-attr]

    @weight.setter
    def weight(self, value: nn.Parameter) -> None:
        self.register_parameter("raw", value)


class RenamedLinear(nn.Linear):
    """A subclass that adds nothing."""


class CalledLinear(nn.Linear):
    def __call__(self, x: Tensor) -> Tensor:
        return 2 * super().__call__(x)


class Convolutions(nn.Module):
    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(make() for _ in range(3))
        self.norm = nn.GroupNorm(2, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(self.norm(block(x)))
        return self.fc(x.mean((2, 3)))


class Layers(nn.Module):
    """``make`` gives the layers one after another; ``fc`` is the classifier."""

    def __init__(self, make: Callable[[], nn.Module] = lambda: nn.Linear(16, 16)) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 16)
        self.layers = nn.ModuleList(make() for _ in range(3))
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return self.fc(x)


class Encoder(nn.Module):
    """PyTorch's own encoder, whose parents read their children's tensors."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, **options)  # type: ignore[arg-type]
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(self.embed(x)).mean(1))


class Attention(nn.Module):
    """Separate projections under Hugging Face's names."""

    def __init__(self, names: tuple[str, str, str]) -> None:
        super().__init__()
        self._names = names
        for name in names:
            self.add_module(name, nn.Linear(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.get_submodule(name)(x).unflatten(-1, (2, 8)) for name in self._names)
        mixed = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        return mixed.transpose(1, 2).flatten(2)


class Output(dict[str, object]):
    """transformers.utils.ModelOutput: a mapping whose entries are attributes too."""

    @property
    def logits(self) -> object:
        return self["logits"]


class HuggingViT(nn.Module):
    """Names and output of a Hugging Face classifier, without that library."""

    def __init__(self, names: tuple[str, str, str]) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        blocks = []
        for _ in range(2):
            block = nn.Module()
            block.attention = Attention(names)
            block.intermediate = nn.Sequential()
            block.intermediate.add_module("dense", nn.Linear(16, 32))
            block.output = nn.Sequential()
            block.output.add_module("dense", nn.Linear(32, 16))
            blocks.append(block)
        self.layer = nn.ModuleList(blocks)
        self.classifier = nn.Linear(16, 3)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Output:
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        for block in self.layer:
            x = x + block.attention(x)
            x = x + block.output(F.gelu(block.intermediate(x)))
        logits = self.classifier(x[:, 0])
        return Output(logits=logits, hidden_states=(x,))
