"""Run a model on an example: find inputs that it takes, and leave no trace in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from recast_core.errors import RecastError

_ROWS = 2
# Cheap ones first: a network that averages its last map takes any; others take one only.
_SIZES = (32, 28, 64, 96, 128, 224, 16, 8, 256, 299, 384, 512)
_LENGTHS = (64, 128, 1024, 16000)
_FIRST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding)


def unwrapped(model: nn.Module) -> tuple[nn.Module, str]:
    """What DataParallel or ``torch.compile`` wraps, and the prefix of its names in ``model``."""
    prefix = ""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model, prefix = model.module, f"{prefix}module."
        elif isinstance(inner := model._modules.get("_orig_mod"), nn.Module):
            model, prefix = inner, f"{prefix}_orig_mod."
        else:
            return model, prefix


def output_tensor(output: object) -> Tensor:
    """The logits in what a model returned: a tensor, or an object that holds one.

    Of a mapping, a data class or a named tuple the entry ``logits``; else the only tensor in it.

    Raises:
        RecastError: several tensors and none that is called logits, or none.
    """
    if isinstance(output, Tensor):
        return output
    named = _named(output)
    if isinstance(found := named.get("logits"), Tensor):
        return found
    tensors = [value for value in named.values() if isinstance(value, Tensor)]
    if len(tensors) == 1:
        return tensors[0]
    raise RecastError(
        f"the model returns a {type(output).__name__} of {len(tensors)} tensors, none of them "
        "called logits: let its forward return the logits alone"
    )


def _named(output: object) -> dict[str, object]:
    if isinstance(output, Mapping):
        return {str(key): value for key, value in output.items()}
    if hasattr(output, "_asdict"):
        return dict(output._asdict())
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    if isinstance(output, Sequence) and not isinstance(output, str):
        return {str(index): value for index, value in enumerate(output)}
    return {}


def refuse_lazy(model: nn.Module) -> None:
    """Refuse a model whose tensors have no shape yet.

    Raises:
        RecastError: names the first of them.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise RecastError(
                f"{name} has no shape yet (a Lazy module): run the model once on an input first"
            )


@contextmanager
def untouched(model: nn.Module, only_on_error: bool = False) -> Iterator[None]:
    """Put every module's attributes, parameters and children back after the block.

    The values in the tensors are not part of it, nor what a parameter says of gradients.

    Args:
        model: with all that it holds.
        only_on_error: keep what a block that ends well has changed.
    """
    held = [
        (module, dict(module.__dict__), _contents(module))
        for module in model.modules()
    ]  # fmt: skip
    try:
        yield
    except BaseException:
        _put_back(held)
        raise
    if not only_on_error:
        _put_back(held)


_Held = tuple[nn.Module, dict[str, object], dict[str, dict[object, object]]]
_REGISTERS = (
    "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set",
    "_forward_hooks", "_forward_pre_hooks",
)  # fmt: skip


def _contents(module: nn.Module) -> dict[str, dict[object, object]]:
    return {
        name: dict.fromkeys(register) if isinstance(register, set) else dict(register)
        for name in _REGISTERS
        if (register := module.__dict__.get(name)) is not None
    }


def _put_back(held: Sequence[_Held]) -> None:
    for module, attributes, contents in held:
        module.__dict__.clear()
        module.__dict__.update(attributes)
        for name, content in contents.items():
            register = module.__dict__[name]
            register.clear()
            register.update(content)


@contextmanager
def on_trial(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients within the block, and no trace of it afterwards."""
    with untouched(model), torch.no_grad():
        model.eval()
        yield


def try_inputs(model: nn.Module, run: Callable[[Tensor], object]) -> Tensor | None:
    """The first of the likely inputs that ``run`` takes without an exception but RecastError."""
    for example in likely_inputs(model):
        try:
            run(example)
        except RecastError:
            raise
        except Exception:  # whatever a stranger's forward makes of an input that does not fit
            continue
        return example
    return None


def likely_inputs(model: nn.Module) -> Iterator[Tensor]:
    """Inputs that ``model`` may take, by its first layer and by what it says of itself."""
    model, _ = unwrapped(model)
    first = next((m for m in model.modules() if isinstance(m, _FIRST)), None)
    weight = None if first is None else first.weight
    if first is None or weight is None or weight.is_meta:
        return
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(_ROWS, *shape, generator=random).to(weight.device, weight.dtype)

    if isinstance(first, nn.Embedding):
        for length in (8, 1):
            yield torch.randint(first.num_embeddings, (_ROWS, length), generator=random).to(
                weight.device
            )
    elif isinstance(first, nn.Linear):
        yield normal(first.in_features)
        yield normal(5, first.in_features)
        for size in _SIZES:
            for channels in (1, 3):
                if channels * size * size == first.in_features:
                    yield normal(channels, size, size)
    elif isinstance(first, nn.Conv1d):
        yield from (normal(first.in_channels, length) for length in _LENGTHS)
    elif isinstance(first, nn.Conv3d):
        yield from (normal(first.in_channels, 8, size, size) for size in _SIZES[:6])
    else:
        for size in dict.fromkeys([*declared_sizes(model), *_SIZES]):
            yield normal(first.in_channels, size, size)


def declared_sizes(model: nn.Module) -> list[int]:
    """The image size in pixels that a model says it takes: torchvision, timm, Hugging Face."""
    model, _ = unwrapped(model)
    declared: list[object] = [getattr(model, "image_size", None)]
    declared.append(getattr(getattr(model, "config", None), "image_size", None))
    for name in ("pretrained_cfg", "default_cfg"):
        own = getattr(model, name, None)
        if isinstance(own, Mapping):
            declared.append(own.get("input_size"))
    last = [value[-1] if isinstance(value, list | tuple) and value else value for value in declared]
    return [value for value in last if isinstance(value, int) and 0 < value <= 2048]
