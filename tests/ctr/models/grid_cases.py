"""Choices of the grid for the tests of all models: each side and each interaction at least once.

Two domains give two tokens beside three of features.
"""

from __future__ import annotations

from typing import Any


def _side(**options: Any) -> dict[str, Any]:
    return {"kind": "grid", "sequence": options}


def _interaction(**options: Any) -> dict[str, Any]:
    return {"kind": "grid", "sequence": {"kind": "pooling"}, "interaction": options}


GRID: dict[str, dict[str, Any]] = {
    "mean pooling": _side(kind="pooling"),
    "sum pooling": _side(kind="pooling", how="sum"),
    "additive pooling": _side(kind="weighted_pooling", attention_width=5),
    "bilinear pooling": _side(kind="weighted_pooling", score="bilinear"),
    "pooling without a question": _side(kind="weighted_pooling", score="self", attention_width=5),
    "GRU": _side(kind="recurrent"),
    "LSTM": _side(kind="recurrent", cell="lstm", layers=2),
    "convolution": _side(kind="convolution", layers=2, taps=2),
    "DIN": _side(kind="din", hidden=[6, 4], activation="prelu"),
    "DIN recent softmax": _side(kind="din", hidden=[6], activation="sigmoid", recent=3, softmax=True),
    "DIN one layer": _side(kind="din", hidden=[]),
    "DIN, tokens normed together": _side(kind="din", hidden=[6], activation="prelu") | {"head_norm": "all"},
    "DIEN": _side(kind="dien", recent=4, auxiliary=0.5),
    "BST": _side(kind="bst", recent=3),
    "target attention": _side(kind="target_attention"),
    "Transformer": _side(kind="target_attention", encoder={"kind": "transformer", "layers": 2}),
    "sparse attention": _side(kind="sparse_attention", window=2, global_count=2),
    "sparse attention, a wide window": _side(kind="sparse_attention", window=6, layers=1),
    "linear attention": _side(kind="linear_attention", decay=False),
    "linear attention, decay": _side(kind="linear_attention"),
    "memory": _side(kind="memory", slots=3),
    "HSTU": _side(kind="hstu"),
    "HSTU without time gaps": _side(kind="hstu", layers=1) | {"time_gaps": False},
    "LONGER first": _side(kind="longer", tower={"num_queries": 4, "cls_tokens": 2}),
    "LONGER first, blind": _side(
        kind="longer", tower={"num_queries": 4, "merge": 2}, global_tokens=False, layers=1
    ),
    "SIM hard": _side(kind="search", by="field", compare="item", keep=2),
    "SIM soft": _side(kind="search", by="inner_product", keep=3),
    "ETA": _side(kind="search", by="signs", keep=3, signs=8),
    "TWIN": _side(kind="search", keep=3),
    "SDIM": _side(kind="sdim", signs=6, group=2),
    "SDIM counts": _side(kind="sdim", signs=6, group=1, counts=True),
    "user embedding": _side(kind="user_embedding"),
    "MLP": _interaction(kind="mlp", hidden=[7, 5]),
    "DCNv2": _interaction(kind="dcn", layers=2),
    "DCNv2 low rank": _interaction(kind="dcn", layers=2, rank=3),
    "Wukong": _interaction(kind="wukong", fm_tokens=2, linear_tokens=3, rank=2, hidden=5),
    "Wukong narrowing": _interaction(kind="wukong", fm_tokens=1, linear_tokens=2, layers=2, rank=2, hidden=5),
    "RankMixer": _interaction(kind="rank_mixer", layers=1) | {"d_model": 10},
    "tokens' Transformer": _interaction(kind="transformer", layers=1),
    "tokens' Transformer, own FFN": _interaction(kind="transformer", layers=1, per_token_ffn=True),
    "AutoInt": _interaction(kind="autoint", layers=2, scaled=False),
    "AutoInt, scaled": _interaction(kind="autoint", layers=1),
}
