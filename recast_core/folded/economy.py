"""Do not compute what nothing reads: a transformer's last block for the class token alone."""

from __future__ import annotations

import operator

from torch import Tensor, fx, nn

from recast_core.folded.graphs import ancestors
from recast_core.layers import RecastLinear, RecastMultiheadAttention
from recast_core.layers.multihead import self_attention

_BY_TOKEN = (
    nn.Linear, nn.LayerNorm, nn.Dropout, nn.Identity, nn.GELU, nn.ReLU, nn.SiLU, RecastLinear,
)  # fmt: skip
_TAKE_FIRST = (slice(None), 0)
_KEEP_FIRST = (slice(None), slice(0, 1))


class _SelfAttention(nn.Module):
    """``x [N, L, E] -> [N, L, E]``, or ``[N, 1, E]`` where only the first token is read."""

    def __init__(self, layer: nn.Module, first: bool) -> None:
        super().__init__()
        self.layer = layer
        self.queries = 1 if first else None

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        if isinstance(layer, RecastMultiheadAttention):
            weight, bias = layer.tensor("in_proj_weight"), layer.optional("in_proj_bias")
            return self_attention(x, weight, bias, layer.original, self.queries)
        assert isinstance(layer, nn.MultiheadAttention)
        return self_attention(x, layer.in_proj_weight, layer.in_proj_bias, layer, self.queries)


def economise(suffix: fx.GraphModule) -> None:
    """Rewrite ``suffix``, in evaluation mode, to the same features for less work.

    A classifier that reads the first token of its last block needs one query there, and one token
    of all that follows. Attention takes queries, keys and values from its packed projection as they
    lie, where PyTorch's module copies each.
    """
    graph = suffix.graph
    attentions = [node for node in graph.nodes if _is_attention(suffix, node)]
    narrow = _first_token_only(suffix, attentions)
    for node in narrow:
        for parent in node.all_input_nodes if _is_by_token(suffix, node) else []:
            if parent not in narrow:
                with graph.inserting_before(node):
                    first = graph.call_function(operator.getitem, (parent, _KEEP_FIRST))
                node.replace_input_with(parent, first)
    for node in attentions:
        name = f"{node.target}_economised".replace(".", "_")
        layer = suffix.get_submodule(str(node.target))
        suffix.add_submodule(name, _SelfAttention(layer, first=node in narrow))
        with graph.inserting_before(node):
            lean = graph.call_module(name, (node.args[0],))
        for result in list(node.users):
            result.replace_all_uses_with(lean)
    graph.eliminate_dead_code()
    suffix.recompile()


def _first_token_only(suffix: fx.GraphModule, attentions: list[fx.Node]) -> list[fx.Node]:
    """The nodes, in order, of whose tokens nothing but the first is read."""
    nodes = list(suffix.graph.nodes)
    for chosen in nodes:
        if chosen.target is operator.getitem and chosen.args[1] == _TAKE_FIRST:
            after = ancestors(nodes[-1], chosen)
            if chosen in after and not any(node.op == "placeholder" for node in after):
                break
    else:
        return []
    results = {user for node in attentions for user in node.users}
    before = ancestors(chosen) - {chosen}
    whole: set[fx.Node] = set()
    for node in before - results:
        if node in attentions:
            whole |= ancestors(node) - {node}
        elif not _is_by_token(suffix, node):
            whole |= ancestors(node)
    return [node for node in nodes if node in before - whole]


def _is_by_token(suffix: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(suffix.get_submodule(str(node.target)), _BY_TOKEN)
    return node.target is operator.add


def _is_attention(suffix: fx.GraphModule, node: fx.Node) -> bool:
    """Whether ``self_attention`` computes all that is read of this node."""
    if node.op != "call_module":
        return False
    layer = suffix.get_submodule(str(node.target))
    plain = layer.original if isinstance(layer, RecastMultiheadAttention) else layer
    return (
        type(plain) is nn.MultiheadAttention
        and plain.batch_first
        and plain._qkv_same_embed_dim
        and plain.bias_k is None
        and not plain.add_zero_attn
        and len(node.args) == 3
        and len(node.all_input_nodes) == 1
        and node.kwargs == {"need_weights": False}
        and all(user.target is operator.getitem and user.args[1] == 0 for user in node.users)
    )
