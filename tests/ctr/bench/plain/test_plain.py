"""Plain models compute what the models compute: outputs, gradients of every weight and of every row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctr.batch import Batch
from ctr.bench.plain.cases import cases
from ctr.bench.plain.data import plain_batch
from ctr.bench.plain.interactions import INTERACTIONS as CROSSINGS
from ctr.bench.plain.stacks import SIDES, STACKS
from ctr.models.interaction.interactions import INTERACTIONS
from ctr.models.registry import MODELS
from ctr.models.sequence.sides import SIDES as SIDE_KINDS
from tests.ctr import batches
from tests.ctr.dataset_fixture import TABLES
from tests.ctr.models.test_conformance import CASES, make_model
from tests.ctr.reference.parity import assert_parity

# Each kind, and the options of those that are timed.
COMPARED = (
    "hyformer", "hyformer transformer", "merged sequences", "auto tokens", "longer", "longer seen globals",
    "two-stage", "two-stage merge", "OneTrans pyramid", "HSTU end to end", "MTGR", "mean pooling",
    "additive pooling", "bilinear pooling", "pooling without a question", "GRU", "LSTM", "convolution", "DIN",
    "DIN recent softmax", "DIEN", "BST", "Transformer", "sparse attention", "linear attention, decay",
    "memory", "HSTU", "LONGER first", "LONGER first, blind", "SIM hard", "SIM soft", "ETA", "TWIN",
    "SDIM counts", "user embedding", "MLP", "DCNv2 low rank", "Wukong narrowing", "RankMixer",
    "tokens' Transformer, own FFN", "AutoInt", "MTGR dynamic mask",
)  # fmt: skip
REFUSED = ("attention sink", "shortcut", "positions", "longer uniform")  # nobody would time them


def tables_of(batch: Batch, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tables with these rows at their places, zeros at others, and the row that stands for no ID."""
    return {
        name: rows[name].new_zeros(count + 1, batches.DIM).index_copy(0, batch.unique_ids[name], rows[name])
        for name, count in TABLES.items()
    }


def compare(case: str, lengths: dict[str, list[int]] = batches.ALL_LENGTHS) -> None:
    """Plain code with the model's own weights, on histories of these lengths."""
    model, rows, batch = make_model(CASES[case]).eval(), batches.make_rows(), batches.make_batch(lengths)
    tables = tables_of(batch, rows)
    plain, _ = STACKS[CASES[case]["kind"]](model, plain_batch(batch, batches.manifest()), tables)
    assert_parity([plain], [model(batch, rows)], model, list(rows.values()))


@pytest.mark.parametrize("name", COMPARED)
def test_plain_is_the_model(name: str) -> None:
    compare(name)


@pytest.mark.parametrize("name", COMPARED)
def test_a_batch_without_events_of_a_domain(name: str) -> None:
    compare(name, batches.ALL_LENGTHS | {"buy": [0] * len(batches.ALL_LENGTHS["buy"])})


def test_the_own_loss_of_a_search_is_the_model_s() -> None:
    """That of DIEN draws events at random."""
    model, rows, batch = make_model(CASES["SIM soft"]).train(), batches.make_rows(), batches.make_batch()
    model(batch, rows)
    _, plain = STACKS["grid"](model, plain_batch(batch, batches.manifest()), tables_of(batch, rows))
    torch.testing.assert_close(plain, model.extra_loss, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_plain_counterpart_says_so(name: str) -> None:
    with pytest.raises(NotImplementedError, match="plain"):
        compare(name)


def test_every_kind_is_timed() -> None:
    """What has no plain counterpart is to be named here."""
    timed = list(cases(batches.manifest()).values())
    assert {case["kind"] for case in timed} == set(STACKS) == set(MODELS)
    grid = [case for case in timed if case["kind"] == "grid"]
    assert {case["sequence"]["kind"] for case in grid} == set(SIDES) == set(SIDE_KINDS.kinds)
    assert {case["interaction"]["kind"] for case in grid} == set(CROSSINGS) == set(INTERACTIONS.kinds)
