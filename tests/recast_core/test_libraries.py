"""Models of other libraries: parents that read their children, objects as outputs, their names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from recast_core import RecastConfig, RecastError, RecastModel, attach, fit, mimic
from recast_core.folded import split_model
from recast_core.targets import find_groups
from tests.recast_core import strangers as s

SIZE = 32


def swin(block: str = "swin_t") -> nn.Module:
    kind = models.swin_transformer
    options = {"block": kind.SwinTransformerBlockV2} if block == "swin_v2_t" else {}
    merging = kind.PatchMergingV2 if block == "swin_v2_t" else kind.PatchMerging
    return models.SwinTransformer(
        [4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=3, downsample_layer=merging, **options
    )


def of_transformers(name: str, **options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        library = pytest.importorskip("transformers")
        common = {
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "image_size": SIZE, "patch_size": 8, "num_labels": 3,
        }  # fmt: skip
        config = getattr(library, f"{name}Config")(**(options or common))
        return getattr(library, f"{name}ForImageClassification")(config)

    return make


def of_timm(name: str, **options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return pytest.importorskip("timm").create_model(name, num_classes=3, **options)

    return make


MODELS: dict[str, tuple[Callable[[], nn.Module], str | tuple[str, ...]]] = {
    "encoder attn": (s.Encoder, "attn"),
    "encoder mlp": (s.Encoder, "mlp"),
    "encoder both": (lambda: s.Encoder(norm_first=True, activation="gelu"), "attn+mlp"),
    "swin attn": (swin, "attn"),
    "swin projection": (swin, ("*attn.proj",)),
    "swin v2": (lambda: swin("swin_v2_t"), "attn+mlp"),
    "query": (lambda: s.HuggingViT(("query", "key", "value")), "attn"),
    "q_proj": (lambda: s.HuggingViT(("q_proj", "k_proj", "v_proj")), "attn"),
    "dense": (lambda: s.HuggingViT(("query", "key", "value")), "mlp"),
    "hf vit": (of_transformers("ViT"), "attn+mlp"),
    "hf deit": (of_transformers("DeiT"), "attn"),
    "hf dinov2": (of_transformers("Dinov2"), "attn+mlp"),
    "hf swin": (
        of_transformers(
            "Swin", image_size=SIZE, patch_size=4, embed_dim=16, depths=[2], num_heads=[2],
            window_size=4, num_labels=3,
        ),
        "attn+mlp",
    ),
    "timm vit attn": (
        of_timm("vit_tiny_patch16_224", img_size=SIZE, depth=2, embed_dim=48), "attn",
    ),
    "timm vit mlp": (of_timm("vit_tiny_patch16_224", img_size=SIZE, depth=2, embed_dim=48), "mlp"),
    "timm convnext": (
        of_timm("convnext_atto", dims=(8,) * 4, depths=(2, 1, 1, 1), ls_init_value=1.0), "mlp",
    ),
}  # fmt: skip


def made(case: str) -> tuple[nn.Module, RecastModel, Tensor, Tensor]:
    torch.manual_seed(0)
    make, target = MODELS[case]
    model = make().eval().requires_grad_(False)
    shape = (6, 5, 8) if isinstance(model, s.Encoder) else (6, 3, SIZE, SIZE)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = model(images)
    wanted = output if isinstance(output, Tensor) else output.logits
    bank = mimic(model, RecastConfig(target, residual=True))
    return model, attach(model, bank), images, wanted


@pytest.mark.parametrize("case", MODELS)
def test_it_starts_at_the_backbone_trains_and_merges(case: str) -> None:
    _, net, images, wanted = made(case)
    with torch.no_grad():
        torch.testing.assert_close(net(images), wanted, rtol=1e-4, atol=1e-5)
    found = fit(net, images, torch.arange(6) % 3, 3, epochs=1)
    assert bool((found.coefficients != net.bank.initial_vector).all()), "all coefficients train"
    with torch.no_grad():
        trained = net(images)
        output = net.merge()(images)
    merged = output if isinstance(output, Tensor) else output.logits
    torch.testing.assert_close(merged, trained, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", MODELS)
@torch.no_grad()
def test_clients_in_one_batch_are_clients_alone_in_what_an_engine_divides(case: str) -> None:
    _, net, images, _ = made(case)
    generator = torch.Generator().manual_seed(2)
    vectors = net.bank.initial_vector + 0.3 * torch.randn(3, net.bank.sent, generator=generator)
    alone = []
    for vector, rows in zip(vectors, images.chunk(3), strict=True):
        net.coefficients.load(vector)
        alone.append(net.features(rows))
    assert not torch.allclose(alone[0], net.features(images[:2]), atol=1e-3)
    net.coefficients.load()
    split = split_model(net, SIZE)
    net.coefficients.load(vectors)
    inputs = images if split.prefix is None else split.prefix(images)
    torch.testing.assert_close(split.suffix(inputs), torch.cat(alone), rtol=1e-4, atol=1e-5)
    if "swin" in case and not case.startswith("hf"):
        assert split.prefix is not None, "a reader of weights must not keep a model whole"


def test_what_a_reader_cannot_do_for_many_clients_is_refused() -> None:
    class Reader(s.Layers):
        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = x + torch.tanh(x @ layer.weight.T)
            return self.fc(x)

    torch.manual_seed(0)
    model, rows = Reader().eval(), torch.randn(4, 16)
    wanted = model(rows).detach()
    net = attach(model, mimic(model, RecastConfig(("layers.*",))))
    torch.testing.assert_close(net(rows).detach(), wanted)
    net.coefficients.load(net.bank.initial_vector.expand(2, -1))
    assert model.layers[0].weight.dtype == torch.float32
    with pytest.raises(RecastError, match="cannot tell clients apart"):
        net(rows)


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        (lambda x: {"a": x, "b": x}, "dict of 2 tensors"),
        (lambda x: (x, x, x), "tuple of 3 tensors"),
        (lambda x: "logits", "str of 0 tensors"),
        (lambda x: None, "NoneType of 0 tensors"),
    ],
)
def test_an_output_without_logits_is_one_line(
    outputs: Callable[[Tensor], object], says: str
) -> None:
    class Odd(s.Layers):
        def forward(self, x: Tensor) -> object:  # type: ignore[override]
            return outputs(super().forward(x))

    model = Odd().eval()
    bank = mimic(model, RecastConfig(("layers.*",)))
    for head in (None, "fc"):
        with pytest.raises(RecastError) as caught:
            attach(model, bank, head=head)
        assert "\n" not in str(caught.value)
    with pytest.raises(RecastError, match=says):
        attach(model, bank, head="fc")


NAMES: dict[str, tuple[str, ...]] = {
    "attn": (
        "vit.encoder.layer.0.attention.attention.query", "bert.encoder.layer.1.attention.self.key",
        "vit.layers.0.attention.q_proj", "encoder.layers.3.self_attn.v_proj", "blocks.5.attn.qkv",
        "features.1.0.attn.qkv",
    ),
    "mlp": (
        "vit.encoder.layer.0.intermediate.dense", "vit.encoder.layer.0.output.dense",
        "vit.layers.0.mlp.fc1", "blocks.5.mlp.fc2", "encoder.layers.1.linear1",
        "features.1.0.mlp.0", "encoder.layers.encoder_layer_0.mlp.3",
    ),
    "neither": (
        "vit.encoder.layer.0.attention.output.dense", "blocks.5.attn.proj", "head",
        "features.1.0.attn.proj", "features.1.0.attn.cpb_mlp.0", "pooler.dense",
        "vit.layers.0.attention.o_proj",
    ),
}  # fmt: skip


def test_presets_know_the_names_of_each_library() -> None:
    root = nn.Module()
    for name in (name for names in NAMES.values() for name in names):
        *path, last = name.split(".")
        parent = root
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, nn.Linear(2, 2))
    for preset in ("attn", "mlp"):
        groups = find_groups(root, RecastConfig(preset))
        assert {name for group in groups for name in group.modules} == set(NAMES[preset])
