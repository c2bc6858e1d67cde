"""A MultiheadAttention whose in-projection is recombined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recast_core.layers.base import TargetLayer
from recast_core.layers.linear import linear

# Up to so many tokens two plain products in float32 take three quarters of the fused kernel's time
# on an H200 (65 tokens, head width 32), forward and backward.
_SHORT = 128


class RecastMultiheadAttention(TargetLayer):
    """Self-attention with a recombined ``in_proj_weight`` ``[3E, E]``.

    Takes the calls of ``nn.MultiheadAttention``. Self-attention without weights or masks (what
    vision transformers do) runs here on scaled_dot_product_attention; every other call is handed to
    the original module with the combined weight, and cannot carry a client axis.
    """

    original: nn.MultiheadAttention

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """``[N, L, E]`` (batch first) or ``[L, N, E]`` -> the same shape, and the weights or None.

        Raises:
            ValueError: a client axis where it cannot be carried.
        """
        weight, attention = self.tensor("in_proj_weight"), self.original
        simple = (
            query is key
            and key is value
            and query.dim() == 3
            and key_padding_mask is None
            and attn_mask is None
            and not need_weights
            and attention.bias_k is None
            and not attention.add_zero_attn
        )
        if not simple:
            if weight.dim() == 3:
                raise ValueError(
                    "a client axis needs unmasked self-attention called with need_weights=False"
                )
            return self._general(
                weight,
                query,
                key,
                value,
                key_padding_mask=key_padding_mask,
                need_weights=need_weights,
                attn_mask=attn_mask,
                average_attn_weights=average_attn_weights,
                is_causal=is_causal,
            )
        if is_causal:
            raise ValueError("is_causal needs an attn_mask, as in nn.MultiheadAttention")
        x = query if attention.batch_first else query.transpose(0, 1)
        dropout = attention.dropout if self.training else 0.0
        out = self_attention(x, weight, self.optional("in_proj_bias"), attention, dropout=dropout)
        return (out if attention.batch_first else out.transpose(0, 1)), None

    def _general(
        self, weight: Tensor, query: Tensor, key: Tensor, value: Tensor, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        attention = self.original
        if attention.batch_first and query.dim() == 3:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        out, weights = F.multi_head_attention_forward(
            query,
            key,
            value,
            attention.embed_dim,
            attention.num_heads,
            weight,
            self.optional("in_proj_bias"),
            attention.bias_k,
            attention.bias_v,
            attention.add_zero_attn,
            attention.dropout,
            *_projection(attention.out_proj),
            training=self.training,
            **options,
        )
        if attention.batch_first and query.dim() == 3:
            out = out.transpose(0, 1)
        return out, weights


def self_attention(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    attention: nn.MultiheadAttention,
    queries: int | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Unmasked self-attention ``[N, L, E] -> [N, L, E]``, or of the first tokens alone.

    Args:
        x: ``[N, L, E]``; with a client axis J, N is a multiple of J.
        weight: packed projection ``[3E, E]`` or ``[J, 3E, E]``.
        bias: ``[3E]``, ``[J, 3E]`` or none.
        attention: gives heads and out-projection.
        queries: compute the result of so many first tokens.
        dropout: probability.
    """
    heads = (attention.num_heads, attention.head_dim)
    if queries is None:
        packed = linear(x, weight, bias).unflatten(-1, (3, *heads))
        q, k, v = packed.permute(2, 0, 3, 1, 4)
    else:
        cut = attention.embed_dim
        first, rest = (None, None) if bias is None else (bias[..., :cut], bias[..., cut:])
        q = linear(x[:, :queries], weight[..., :cut, :], first).unflatten(-1, heads).transpose(1, 2)
        packed = linear(x, weight[..., cut:, :], rest).unflatten(-1, (2, *heads))
        k, v = packed.permute(2, 0, 3, 1, 4)
    mixed = _mix(q, k, v, dropout).transpose(1, 2).flatten(2)
    # By its tensors, not by a call, as in PyTorch: a forward or hook of its own changes nothing.
    return linear(mixed, *_projection(attention.out_proj))


def _mix(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    short = k.shape[-2] <= _SHORT and not dropout
    if not (short and q.is_cuda and q.dtype == torch.float32):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return torch.softmax(scores, -1) @ v


def _projection(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the out-projection, which may itself be a target layer."""
    if isinstance(layer, TargetLayer):
        return layer.tensor("weight"), layer.optional("bias")
    assert isinstance(layer, nn.Linear)
    return layer.weight, layer.bias
