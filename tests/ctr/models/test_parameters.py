"""Parameter counts of whole models equal formulas of their widths; the same seed gives the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ctr.build import build_model
from ctr.models.registry import model_config
from features.errors import ConfigError
from tests.ctr import batches
from tests.ctr.reference.flops import per_token_ffn_parameters, query_generation_parameters

D, E, M, N, S, BUCKETS, HEAD = 12, batches.DIM, 3, 3, 2, 32, 6
BASE: dict[str, Any] = {"d_model": D, "heads": 2, "head_hidden": [HEAD], "expansion": 2.0}


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def ffn(width: int, hidden: int) -> int:
    return linear(width, hidden) + linear(hidden, width)


def attention_layer(width: int, hidden: int) -> int:
    """Attention 4 W² + 4 W, two LayerNorms 4 W, FFN."""
    return 4 * width**2 + 8 * width + ffn(width, hidden)


def tokenizers(*, merged: bool) -> int:
    """NS groups: user (2 E + 2), item (2 E + 1), cross (E + 1 + 2); view: 3 IDs, 3 numbers; buy: 1 ID."""
    groups = linear(2 * E + 2, D) + linear(2 * E + 1, D) + linear(E + 3, D)
    view, buy = 3 * E * D + linear(1 + 3, D), E * D + linear(1, D)
    return groups + view + buy + S * (BUCKETS * D + 2 * D) + (S * D if merged else 0)


def head(inputs: int, width: int) -> int:
    return 2 * width + linear(inputs, HEAD) + linear(HEAD, 1)


def hyformer(layers: int) -> int:
    """Generation once; per layer: encoders, decoders (with a norm of the events), boosting."""
    generation = query_generation_parameters(D, M, S, N, 2 * D)
    encoders = S * attention_layer(D, 2 * D)
    decoders = S * (4 * D**2 + 4 * D + 4 * D)
    boosting = per_token_ffn_parameters(N + M, D, 2 * D) + 2 * D
    return (
        tokenizers(merged=False)
        + generation
        + layers * (encoders + decoders + boosting)
        + head((N + M) * D, D)
    )


def tower(merge: int, layers: int) -> int:
    return layers * attention_layer(merge * D, 2 * merge * D)


def longer(merge: int, layers: int) -> int:
    wide = merge * D
    widen = linear(D, wide) if merge > 1 else 0
    return tokenizers(merged=True) + tower(merge, layers) + widen + wide + head((M + 1) * wide, wide)


def two_stage(merge: int, layers: int, mixers: int) -> int:
    wide, tokens = merge * D, 1 + M
    between = linear(D, wide) + linear(wide, D) if merge > 1 else 0
    mixing = mixers * (per_token_ffn_parameters(tokens, D, 2 * D) + 4 * D)
    return tokenizers(merged=True) + tower(merge, layers) + between + wide + mixing + head(tokens * D, D)


def build(**options: Any) -> nn.Module:
    return build_model(batches.manifest(), model_config(**(BASE | options)), dim=E, seed=1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"queries": {"view": 2}, "layers": 1}, hyformer(1)),
        ({"queries": {"view": 2}, "layers": 3}, hyformer(3)),
        ({"kind": "longer", "layers": 2}, longer(1, 2)),
        ({"kind": "longer", "layers": 1, "longer": {"merge": 3}}, longer(3, 1)),
        ({"kind": "two_stage", "two_stage": {"mixer_layers": 3}}, two_stage(1, 2, 3)),
        ({"kind": "two_stage", "longer": {"merge": 2}}, two_stage(2, 2, 2)),
    ],
)
def test_parameters(options: dict[str, Any], expected: int) -> None:
    assert sum(p.numel() for p in build(**options).parameters()) == expected


def test_seed_decides_the_weights_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = build(kind="longer"), build(kind="longer")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    other = build_model(batches.manifest(), model_config(**BASE, kind="longer"), dim=E, seed=2)
    assert not torch.equal(other.cls, first.cls)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"queries": {"view": 3}}, "D=12, T=7"),
        ({"queries": {"seen": 3}}, r"\['buy', 'view'\], got \['seen'\]"),
        ({"merge_sequences": True, "queries": {"view": 1}}, r"\['merged'\], got \['view'\]"),
        ({"queries": {"view": 2}, "heads": 5}, "width=12, heads=5"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build(**options)


def test_a_data_set_without_behaviour_is_refused() -> None:
    manifest = batches.manifest(domains={})
    with pytest.raises(ConfigError, match=r"at least one behaviour domain.* or choose kind grid"):
        build_model(manifest, model_config(**BASE), dim=E, seed=1)


def test_a_grid_without_behaviour_is_its_interaction_alone() -> None:
    manifest, grid = batches.manifest(domains={}), {**BASE, "kind": "grid", "interaction": {"kind": "dcn"}}
    names = dict(build_model(manifest, model_config(**grid), dim=E, seed=1).named_parameters())
    assert any(n.startswith("interaction.") for n in names) and not any(n.startswith("side") for n in names)
    with pytest.raises(ConfigError, match=r"has none; leave model\.sequence out"):
        build_model(manifest, model_config(**grid, sequence={"kind": "pooling"}), dim=E, seed=1)
