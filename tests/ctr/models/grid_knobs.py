"""Each option of the grid: the options that it needs to matter, and another value than theirs."""

from __future__ import annotations

from typing import Any


def _side(**options: Any) -> dict[str, Any]:
    return {"kind": "grid", "sequence": options}


def _interaction(**options: Any) -> dict[str, Any]:
    return {"kind": "grid", "sequence": {"kind": "pooling"}, "interaction": options}


_LIBRARY = _side(kind="target_attention", encoder={"kind": "library", "architecture": "bert"})
_LONGER = _side(kind="longer", tower={"num_queries": 3})
_DIN = _side(kind="din", hidden=[6, 4])

GRID_KNOBS: dict[str, tuple[dict[str, Any], Any]] = {
    "sequence.kind": (_side(kind="pooling"), "sdim"),
    "sequence.how": (_side(kind="pooling") | {"interaction": {"kind": "dcn"}}, "sum"),
    "sequence.score": (_side(kind="weighted_pooling"), "bilinear"),
    "sequence.attention_width": (_side(kind="weighted_pooling"), 5),
    "sequence.cell": (_side(kind="recurrent"), "lstm"),
    "sequence.layers": (_side(kind="hstu"), 1),
    "sequence.taps": (_side(kind="convolution"), 2),
    "sequence.hidden": (_DIN, [5]),
    "sequence.activation": (_DIN, "prelu"),
    "sequence.softmax": (_DIN, True),
    "sequence.recent": (_DIN, 2),
    "sequence.auxiliary": (_side(kind="dien"), 0.5),
    "sequence.encoder.kind": (_side(kind="target_attention", encoder={}), "transformer"),
    "sequence.encoder.layers": (_side(kind="target_attention", encoder={"kind": "transformer"}), 1),
    "sequence.encoder.architecture": (_LIBRARY, "gpt2"),
    "sequence.encoder.options": (_LIBRARY, {"hidden_act": "relu"}),
    "sequence.window": (_side(kind="sparse_attention", window=4), 2),
    "sequence.global_count": (_side(kind="sparse_attention"), 2),
    "sequence.decay": (_side(kind="linear_attention"), False),
    "sequence.slots": (_side(kind="memory"), 3),
    "sequence.tower.merge": (_LONGER, 2),
    "sequence.tower.inner_layers": (_LONGER, 1),
    "sequence.tower.queries": (_LONGER, "uniform"),
    "sequence.tower.num_queries": (_LONGER, 2),
    "sequence.tower.cls_tokens": (_LONGER, 2),
    "sequence.global_tokens": (_LONGER, False),
    "sequence.by": (_side(kind="search", keep=2), "signs"),
    "sequence.keep": (_side(kind="search", keep=2), 3),
    "sequence.signs": (_side(kind="search", by="signs", keep=2), 32),
    "sequence.loss": (_side(kind="search", by="inner_product"), 0.5),
    "sequence.group": (_side(kind="sdim"), 2),
    "sequence.counts": (_side(kind="sdim"), True),
    "head_norm": (_side(kind="pooling", how="sum"), "all"),
    "interaction.kind": (_interaction(kind="mlp"), "dcn"),
    "interaction.hidden": (_interaction(kind="mlp"), [5]),
    "interaction.layers": (_interaction(kind="dcn"), 2),
    "interaction.rank": (_interaction(kind="dcn"), 3),
    "interaction.fm_tokens": (_interaction(kind="wukong"), 2),
    "interaction.linear_tokens": (_interaction(kind="wukong"), 2),
    "interaction.per_token_ffn": (_interaction(kind="transformer"), True),
    "interaction.scaled": (_interaction(kind="autoint"), False),
}
# The field that hard search compares has its own test: the small batch has one that candidates share.
# The pyramid takes longer histories than those of the batch: tests/ctr/models/test_one_trans.py.
ELSEWHERE = {"sequence.compare", "pyramid"}
