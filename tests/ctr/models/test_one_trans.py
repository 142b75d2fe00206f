"""OneTrans beyond one row's formula: who asks in which layer, and which weights there are."""

from __future__ import annotations

from typing import Any

from ctr.models.one_trans import OneTransConfig
from tests.ctr.models.test_conformance import make_model


def config(**options: object) -> OneTransConfig:
    return OneTransConfig.model_validate({"kind": "one_trans", **options})


def test_the_pyramid_is_linear_and_rounded_up() -> None:
    assert config(layers=6).asking(1190) == [None, 960, 736, 480, 256, 0]
    assert config(layers=3, pyramid_step=1).asking(9) == [None, 5, 0]
    assert config(layers=3, pyramid_step=1, pyramid_events=4).asking(9) == [None, 2, 0]
    assert config(layers=3, pyramid=False).asking(9) == [None, None, 0]
    assert config(layers=2).asking(9) == [None, 0] and config(layers=1).asking(9) == [0]


def test_events_share_weights_and_ns_tokens_have_their_own() -> None:
    """About (4 + 2r) D² shared and M (3 + 2r) D² own; the last layer asks with no event."""
    model: Any = make_model({"kind": "one_trans", "layers": 3})
    width, tokens = 12, 3
    shared = {"attention.query", "attention.key_value", "attention.output", "ffn.up", "ffn.down"}
    for number, layer in enumerate(model.layers):
        maps = {n.rpartition(".")[0]: p for n, p in layer.named_parameters() if n.endswith("weight")}
        asks = shared - ({"attention.query", "ffn.up", "ffn.down"} if number == 2 else set())
        own = {"ns_qkv", "ns_ffn.up", "ns_ffn.down"}
        assert {name for name in maps if "norm" not in name} == asks | own
        assert sum(maps[name].numel() for name in own) == tokens * (3 + 2 * 2) * width**2
        assert sum(maps[n].numel() for n in shared) == (4 + 2 * 2) * width**2 if number < 2 else True
    same: Any = make_model({"kind": "one_trans", "layers": 3, "ns_parameters": "shared"})
    assert not any("ns_" in name for name, _ in same.layers.named_parameters())
