"""Whole models against the papers' formulas, row by row: logits, gradients of every weight and embedding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ctr.batch import Batch, map_tensors
from ctr.build import build_model
from ctr.models.registry import MODELS, model_config
from features.dataset import Manifest
from tests.ctr import batches
from tests.ctr.models.grid_cases import GRID
from tests.ctr.models.unified_cases import UNIFIED
from tests.ctr.reference.models import REFERENCES, logits
from tests.ctr.reference.parity import assert_parity, scrambled

# N = 3 and M = 3: T = 6 divides d_model 12. The encoder is the one that a plain reference computes fastest.
HYFORMER: dict[str, Any] = {"kind": "hyformer", "queries": {"view": 2}, "encoder": {"kind": "swiglu"}}
LONGER: dict[str, Any] = {"kind": "longer", "longer": {"num_queries": 4}}
TWO_STAGE: dict[str, Any] = {"kind": "two_stage", "longer": {"num_queries": 4}}  # c = 1 and M = 3: T = 4
FEW = [1, 1, 2, 1, 1, 1]  # candidates per request, for the slow plain references
MERGED: dict[str, Any] = {"queries": {}, "merge_sequences": True}

# name → options; every named choice of ModelConfig is met at least once.
CASES: dict[str, dict[str, Any]] = {
    "hyformer": HYFORMER | {"encoder": {"kind": "longer", "recent": 4}},
    "hyformer transformer": HYFORMER | {"encoder": {"kind": "transformer"}},
    "hyformer swiglu": HYFORMER,
    "events encoded anew": HYFORMER | {"encoder": {"kind": "longer", "recent": 4}, "encoder_input": "events"},
    "no residual around decoding": HYFORMER | {"decoding_residual": False},
    "pools own": HYFORMER | {"pools": "own"},
    "pools none": HYFORMER | {"pools": "none"},
    "query from candidate": HYFORMER | {"query_inputs": "candidate"},
    "attention sink": HYFORMER | {"attention_sink": True, "encoder": {"kind": "transformer"}},
    "merged sequences": HYFORMER | MERGED,
    "ns tokens start again": HYFORMER | {"update_ns_tokens": False, "layers": 3},
    "head reads queries": HYFORMER | {"head_reads": "queries"},
    "head reads mean": HYFORMER | {"head_reads": "mean", "head_hidden": [5, 4]},
    "no hidden layer in the head": HYFORMER | {"head_hidden": []},
    "shortcut": HYFORMER | {"linear_shortcut": True},
    "positions": HYFORMER | {"positions": 4},
    "no time gaps, merged": HYFORMER | MERGED | {"time_gaps": False},
    "few buckets": HYFORMER | {"time_buckets": 3},
    "rms": HYFORMER | {"norm": "rms"},
    "auto tokens": HYFORMER | {"tokenizer": {"kind": "auto", "tokens": 3}},
    "hidden layer in tokens": HYFORMER | {"tokenizer": {"hidden": 7}},
    "dense bins": HYFORMER | {"dense_bins": 3},
    "dense bins, auto tokens": HYFORMER | {"dense_bins": 2, "tokenizer": {"kind": "auto", "tokens": 3}},
    "one layer": HYFORMER | {"layers": 1},
    "wide": HYFORMER | {"expansion": 0.5, "encoder": {"expansion": 1.0, "recent": 2}},
    "longer": LONGER,
    "longer one layer": LONGER | {"layers": 1},
    "longer merge": LONGER | {"longer": {"num_queries": 3, "merge": 3}, "norm": "rms", "positions": 6},
    "longer InnerTrans": LONGER | {"longer": {"merge": 2, "inner_layers": 1}},
    "longer InnerTrans rms": LONGER | {"longer": {"merge": 2, "inner_layers": 2}, "norm": "rms"},
    "longer uniform": LONGER | {"longer": {"num_queries": 4, "queries": "uniform", "cls_tokens": 2}},
    "longer learnable": LONGER | {"longer": {"num_queries": 4, "queries": "learnable"}, "layers": 3},
    "longer seen globals": LONGER
    | {"longer": {"num_queries": 4, "cls_tokens": 2, "events_see_request_globals": True}, "layers": 3},
    "longer mean, shortcut": LONGER | {"head_reads": "mean", "linear_shortcut": True},
    "two-stage": TWO_STAGE,
    "two-stage blind": TWO_STAGE | {"two_stage": {"global_tokens": False, "mixer_layers": 1}},
    "two-stage merge": TWO_STAGE | {"longer": {"merge": 2, "num_queries": 3}},
    "two-stage blind merge": TWO_STAGE | {"two_stage": {"global_tokens": False}, "longer": {"merge": 2}},
} | GRID | UNIFIED  # fmt: skip


def make_model(options: dict[str, Any], manifest: Manifest | None = None) -> nn.Module:
    """A small model in float64 whose parameters are all random."""
    config = model_config(**{"d_model": 12, "heads": 2, "head_hidden": [6], **options})
    return scrambled(build_model(manifest or batches.manifest(), config, dim=batches.DIM, seed=1))


def test_every_model_has_a_reference_and_cases() -> None:
    """A line in ctr.models.registry asks for both."""
    assert set(MODELS) == set(REFERENCES) == {options["kind"] for options in CASES.values()}


@pytest.mark.parametrize("name", CASES)
def test_model_is_the_paper_row_by_row(name: str) -> None:
    model, rows, batch = make_model(CASES[name]), batches.make_rows(), batches.make_batch(candidates=FEW)
    got, want = model(batch, rows), logits(model, batches.manifest(), batch, rows)
    assert_parity([got], [want], model, list(rows.values()))


@pytest.mark.parametrize("name", CASES)
def test_shared_equals_requests_of_one_candidate(name: str) -> None:
    model, rows, batch = make_model(CASES[name]), batches.make_rows(), batches.make_batch()
    got, want = model(batch, rows), model(batches.per_row(batch), rows)
    assert_parity([got], [want], model, list(rows.values()))


@pytest.mark.parametrize("name", CASES)
def test_a_candidate_changes_no_other_row(name: str) -> None:
    model, rows, batch = make_model(CASES[name]), batches.make_rows(), batches.make_batch()
    changed = 3  # one of four candidates of request 2
    item = batch.candidate_ids["item"].inverse_indices.clone()
    item[changed] = (item[changed] + 1) % batches.UNIQUE
    use = replace(batch.candidate_ids["item"], inverse_indices=item)
    other = replace(batch, candidate_ids={**batch.candidate_ids, "item": use})
    difference = (model(batch, rows) - model(other, rows)).abs() > 1e-12
    assert difference.nonzero().flatten().tolist() == [changed]


@pytest.mark.fault(18)
@pytest.mark.parametrize("name", CASES)
def test_without_any_event_all_is_finite(name: str) -> None:
    model, rows = make_model(CASES[name]), batches.make_rows()
    batch = batches.make_batch({"view": [0] * 6, "buy": [0] * 6})
    scores = model(batch, rows)
    assert torch.isfinite(scores).all()
    gradients = torch.autograd.grad(scores.sum(), [*rows.values(), *model.parameters()], allow_unused=True)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    # "No history" is a value of its own: the same whatever the other requests of the batch hold.
    mixed = batches.make_batch({"view": [0, 5, 0, 5, 5, 5], "buy": [0, 5, 0, 5, 5, 5]})
    for field in ("request_ids", "request_dense", "candidate_ids", "candidate_dense"):
        mixed = replace(mixed, **{field: getattr(batch, field)})
    empty = torch.isin(batch.request_index, torch.tensor([0, 2]))
    torch.testing.assert_close(model(mixed, rows)[empty], scores[empty])


@pytest.mark.parametrize("options", [HYFORMER | {"pools": "none"}, LONGER | {"layers": 1}])
def test_single_precision_agrees(options: dict[str, Any]) -> None:
    model, rows, batch = make_model(options), batches.make_rows(), batches.make_batch()
    wide = model(batch, rows)
    narrow = model.float()(to_single(batch), {name: r.float() for name, r in rows.items()})
    torch.testing.assert_close(narrow.double(), wide, atol=1e-3, rtol=1e-3)


def to_single(batch: Batch) -> Batch:
    return map_tensors(batch, lambda t: t.float() if t.dtype == torch.float64 else t)
