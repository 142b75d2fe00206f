"""The choices that are timed beside plain code: every kind of model, of sequence side and of interaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctr.tokens.shared import shared_fields
from features.dataset import Manifest

CaseOptions = dict[str, Any]

# Sides and interactions, by what they are called, with what is not their default.
SIDES: Mapping[str, CaseOptions] = {
    "DIN": {"kind": "din"},
    "DIN, PReLU and softmax": {"kind": "din", "activation": "prelu", "softmax": True},
    "target attention": {"kind": "target_attention"},
    "Transformer, target attention": {"kind": "target_attention", "encoder": {"kind": "transformer"}},
    "BST": {"kind": "bst"},
    "mean pooling": {"kind": "pooling"},
    "additive pooling": {"kind": "weighted_pooling"},
    "bilinear pooling": {"kind": "weighted_pooling", "score": "bilinear"},
    "GRU": {"kind": "recurrent"},
    "LSTM": {"kind": "recurrent", "cell": "lstm"},
    "DIEN": {"kind": "dien"},
    "convolution": {"kind": "convolution"},
    "HSTU side": {"kind": "hstu"},
    "LONGER side": {"kind": "longer"},
    "LONGER side, blind": {"kind": "longer", "global_tokens": False},
    "SIM, hard": {"kind": "search", "by": "field", "keep": 16},
    "SIM, soft": {"kind": "search", "by": "inner_product", "keep": 16},
    "ETA": {"kind": "search", "by": "signs", "keep": 16},
    "TWIN": {"kind": "search", "keep": 16},
    "SDIM": {"kind": "sdim"},
    "linear attention": {"kind": "linear_attention"},
    "sparse attention": {"kind": "sparse_attention", "window": 16},
    "memory": {"kind": "memory"},
    "user embedding": {"kind": "user_embedding"},
}
INTERACTIONS: Mapping[str, CaseOptions] = {
    "MLP": {"kind": "mlp", "hidden": [64]},
    "DCNv2": {"kind": "dcn"},
    "DCNv2, low rank": {"kind": "dcn", "rank": 16},
    "Wukong": {"kind": "wukong"},
    "RankMixer": {"kind": "rank_mixer"},
    "tokens' Transformer": {"kind": "transformer"},
    "AutoInt": {"kind": "autoint"},
}
MODELS: Mapping[str, CaseOptions] = {
    "HyFormer, Transformer": {"kind": "hyformer", "encoder": {"kind": "transformer"}},
    "HyFormer, LONGER-style": {"kind": "hyformer", "encoder": {"kind": "longer", "recent": 16}},
    "HyFormer, SwiGLU": {"kind": "hyformer", "encoder": {"kind": "swiglu"}},
    "LONGER": {"kind": "longer"},
    "LONGER, merge 2": {"kind": "longer", "longer": {"merge": 2}},
    "two-stage": {"kind": "two_stage"},
    "OneTrans": {"kind": "one_trans", "norm": "rms"},
    "HSTU": {"kind": "hstu"},
    "MTGR": {"kind": "hstu", "action_tokens": "added", "group_norm": True, "mask": "dynamic"},
}


def cases(manifest: Manifest) -> dict[str, CaseOptions]:
    """Name → options below `model`, for a data set; without sides that need a table which it does not share.

    A side stands before an MLP, an interaction behind target attention.
    """
    named: dict[str, CaseOptions] = {
        name: {"kind": "grid", "sequence": dict(side), "interaction": {"kind": "mlp"}}
        for name, side in SIDES.items()
    }
    for name, interaction in INTERACTIONS.items():
        named[name] = {
            "kind": "grid",
            "sequence": {"kind": "target_attention"},
            "interaction": dict(interaction),
        }
    named |= {name: dict(model) for name, model in MODELS.items()}
    named["HSTU"]["actions"] = actions(manifest)
    if (field := shared_field(manifest)) is None:
        del named["SIM, hard"]
    else:
        named["SIM, hard"]["sequence"]["compare"] = field
    if not all(shared_fields(manifest, domain) for domain in manifest.domains):
        del named["ETA"], named["SDIM"]
    return named


def shared_field(manifest: Manifest) -> str | None:
    """A field with one ID, in the events of all domains, of a table that candidates have as well."""
    own = {c.table for c in manifest.features if c.kind == "id" and c.level == "candidate"}
    found = [
        {c.name for c in info.side if c.kind == "id" and c.table in own} for info in manifest.domains.values()
    ]
    return min(set.intersection(*found), default=None) if found else None


def actions(manifest: Manifest) -> list[str]:
    """The last field of each domain: outcomes stand behind what they are outcomes of."""
    return [f"{domain}.{info.side[-1].name}" for domain, info in manifest.domains.items() if info.side]
