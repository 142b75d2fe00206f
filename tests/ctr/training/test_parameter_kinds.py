"""The kind of every parameter of every model: a new one that says nothing is seen here."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from torch import nn

from ctr.build import build_model
from ctr.library.architectures import ARCHITECTURES, BodySizes
from ctr.library.transformers import build_body
from ctr.models.registry import model_config
from ctr.training.parameter_kinds import parameter_kinds
from tests.ctr import batches

COMMON = {"linear_shortcut": True, "positions": 4, "token_filter": {"mode": "remove", "by": "classifier"}}
MODELS: list[dict[str, Any]] = [
    {"kind": "hyformer", "attention_sink": True, "queries": {"view": 2}, "d_model": 12},
    {"kind": "longer", "longer": {"queries": "learnable", "merge": 2, "inner_layers": 1}},
    {"kind": "two_stage", "longer": {"queries": "learnable", "merge": 2}},
    {"kind": "one_trans"},
    {"kind": "hstu", "action_tokens": "added", "group_norm": True},
]
# Last parts of the names of parameters that are no map, bias or norm.
EMBEDDINGS = {"gap_bucket.weight", "position.weight"}
TOKENS = {"cls", "learned", "tag", "sink", "hidden_event", "by_place", "by_time"}


def names_by_kind(model: nn.Module) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, kind in parameter_kinds(model).items():
        found[kind].append(name)
    return found


@pytest.mark.parametrize("options", MODELS, ids=lambda options: options["kind"])
def test_every_parameter_of_a_model(options: dict[str, Any]) -> None:
    config = model_config(**{"d_model": 8, "heads": 2, **COMMON, **options})
    model = build_model(batches.manifest(), config, dim=batches.DIM, seed=1)
    kinds = names_by_kind(model)
    assert sum(map(len, kinds.values())) == len(list(model.parameters()))
    assert {".".join(name.split(".")[-2:]) for name in kinds["embedding"]} == EMBEDDINGS
    assert {name.rpartition(".")[2] for name in kinds["token"]} <= TOKENS
    assert all(name.endswith("bias") for name in kinds["bias"])
    assert all("norm" in name for name in kinds["norm"])
    assert all(name.endswith("weight") and "norm" not in name for name in kinds["map"])
    assert "head.shortcut.weight" in kinds["map"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_bodies_of_the_library(name: str) -> None:
    body = build_body(name, BodySizes(16, 2, 32, 10, 0.0), {})
    kinds, parameters = names_by_kind(body), dict(body.named_parameters())
    assert kinds["map"] and all("bias" not in part and "norm" not in part for part in kinds["map"])
    assert all(parameters[part].ndim >= 2 for part in kinds["map"])
    assert {part.rpartition(".")[2] for part in kinds["token"]} <= {"sinks"}
    assert not any("embed" in part or "wpe" in part for part in kinds["map"])
