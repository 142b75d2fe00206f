"""What each dense parameter is: the weight of a map, a bias, part of a norm, an embedding, or a token.

The shape does not tell: the biases of per-token maps are matrices, a stack of learnable tokens is one, too.

    map         weights of `nn.Linear` and of modules that name them in MAPS, as `PerTokenLinear` does
    bias        what is added to a map, whatever its shape
    norm        scale and shift of LayerNorm, RMSNorm and the library's own
    embedding   rows of `nn.Embedding`: positions, buckets of time gaps, a language model's tokens
    token       what a module holds beside these: CLS and query tokens, domain tags, the attention sink

A map is decayed, nothing else is (ctr.training.optim). A module that holds a map's weight itself says so:

    class MyMap(nn.Module):
        MAPS = ("weight",)
"""

from __future__ import annotations

from typing import Literal

from torch import nn

ParameterKind = Literal["map", "bias", "norm", "embedding", "token"]


def parameter_kinds(model: nn.Module) -> dict[str, ParameterKind]:
    """The kind of every parameter by its name, in the order of `model.named_parameters()`.

    A parameter that two modules share, such as a language model's tied embedding, is of the first one's kind.

    Example:
        >>> parameter_kinds(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
        {'0.weight': 'map', '0.bias': 'bias', '1.weight': 'norm', '1.bias': 'norm'}
    """
    modules = dict(model.named_modules())
    kinds: dict[str, ParameterKind] = {}
    for name, parameter in model.named_parameters():
        owner, _, own = name.rpartition(".")
        kinds[name] = _kind(modules[owner], own, matrix=parameter.ndim >= 2)
    return kinds


def _kind(module: nn.Module, name: str, *, matrix: bool) -> ParameterKind:
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) or type(module).__name__.endswith("Norm"):
        return "norm"
    if name == "bias" or name.endswith("_bias"):
        return "bias"
    if isinstance(module, nn.Linear) or name in getattr(module, "MAPS", ()):
        return "map"
    # The library's experts, routers and GPT-2's maps hold their weights as they are, and cannot be asked.
    of_library = type(module).__module__.startswith("transformers.")
    return "map" if of_library and matrix else "token"
