"""The unified models for the tests of all models: every choice at least once.

The test data have 10 events of each of two domains at most, three ns tokens, one of them the request's.
"""

from __future__ import annotations

from typing import Any

# 20 events: 14 and 8 of them ask in the layers between.
_DEEP = {"kind": "one_trans", "layers": 4, "pyramid_step": 2}
_HSTU = {"kind": "hstu", "actions": ["view.dwell"]}
_DYNAMIC = {"mask": "dynamic", "real_time_seconds": 10_000}

UNIFIED: dict[str, dict[str, Any]] = {
    "OneTrans": {"kind": "one_trans"},
    "OneTrans one layer": {"kind": "one_trans", "layers": 1, "norm": "layer"},
    "OneTrans pyramid": _DEEP | {"pyramid_events": 6},
    "OneTrans all ask": {"kind": "one_trans", "layers": 3, "pyramid": False, "ns_attention": "full"},
    "OneTrans shared parameters": {"kind": "one_trans", "ns_parameters": "shared", "layers": 3},
    "OneTrans auto tokens": {"kind": "one_trans", "tokenizer": {"kind": "auto", "tokens": 4}},
    "HSTU end to end": _HSTU,
    "HSTU the domain is the action": {"kind": "hstu", "norm": "rms", "positions": 3},
    "MTGR": {"kind": "hstu", "action_tokens": "added", "group_norm": True},
    "MTGR dynamic mask": {"kind": "hstu", "action_tokens": "added", "group_norm": True} | _DYNAMIC,
    "MTGR interleaved rms": _HSTU | {"group_norm": True, "norm": "rms", "time_gaps": False},
    "HSTU auto tokens": _HSTU | {"tokenizer": {"kind": "auto", "tokens": 2}, "layers": 1},
}

_PYRAMID = {"kind": "one_trans", "layers": 3, "pyramid_step": 1, "pyramid_events": 10}

# Each option: the options that it needs to matter, and another value than theirs.
UNIFIED_KNOBS: dict[str, tuple[dict[str, Any], Any]] = {
    "ns_parameters": ({"kind": "one_trans"}, "shared"),
    "ns_attention": ({"kind": "one_trans"}, "full"),
    "pyramid_step": (_PYRAMID, 6),
    "pyramid_events": (_PYRAMID, 3),
    "actions": ({"kind": "hstu"}, ["view.dwell"]),
    "action_tokens": ({"kind": "hstu"}, "added"),
    "group_norm": ({"kind": "hstu"}, True),
    "mask": ({"kind": "hstu"}, "dynamic"),
    "real_time_seconds": ({"kind": "hstu"} | _DYNAMIC, 10),
}
