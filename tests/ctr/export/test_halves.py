"""The two halves on padded inputs give what the model gives: every kind and choice that can be exported."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ctr.batch import Batch
from ctr.export.halves import EncodeHalf, ScoreHalf
from ctr.export.inputs import Input, inputs_of_candidates, inputs_of_requests, packed
from ctr.export.load import inputs
from ctr.export.outputs import ScoreOutputs
from ctr.export.programs import least_slots, make_programs, why_not
from ctr.models.model import Model
from ctr.training.outputs import Outputs
from tests.ctr import batches
from tests.ctr.models.test_conformance import CASES, make_model

EMPTY = {"view": [0, 3, 0, 1, 0, 7], "buy": [0, 0, 2, 1, 0, 1]}
MANIFEST = batches.manifest()
HALVES: tuple[list[Input], list[Input]] = inputs_of_requests(MANIFEST), inputs_of_candidates(MANIFEST)
PLAIN = ScoreOutputs(Outputs())
# What no graph of fixed operations does.
IN_TURN = [
    "GRU",
    "LSTM",
    "convolution",
    "DIEN",
    "BST",
    "linear attention",
    "linear attention, decay",
    "memory",
]
CHOSEN = ["HSTU", "HSTU without time gaps", "SIM hard", "SIM soft", "ETA", "TWIN", "SDIM", "SDIM counts"]
PACKED = [name for name, options in CASES.items() if options["kind"] == "hstu"]
EXPORTED = [name for name in CASES if name not in IN_TURN + CHOSEN + PACKED]
# Graphs are made of few cases, which have together every part of the others.
GRAPHS = [
    "hyformer",
    "merged sequences",
    "query from candidate",
    "shortcut",
    "auto tokens",
    "longer InnerTrans",
    "longer seen globals",
    "two-stage blind merge",
    "LONGER first",
    "additive pooling",
    "DIN",
    "Transformer",
    "DCNv2 low rank",
    "Wukong",
    "RankMixer",
    "tokens' Transformer",
    "AutoInt",
    "OneTrans pyramid",
    "sparse attention",
    "user embedding",
]


def built(name: str) -> Model:
    """A model with random weights, in evaluation mode."""
    model = make_model(CASES[name]).eval()
    assert isinstance(model, Model)
    return model


def padded(batch: Batch, model: Model) -> tuple[list[dict[str, Tensor]], Tensor]:
    """The inputs of both halves, IDs being positions among the unique ones; which candidates are there."""
    batch = replace(batch, unique_ids={t: torch.arange(batches.UNIQUE) for t in batch.unique_ids})
    file = packed(batch, [*HALVES[0], *HALVES[1]])
    schema = {"least": least_slots(model), "device": "cpu"}
    schema |= {n: [c.plain() for c in half] for n, half in zip(("encode", "score"), HALVES, strict=True)}
    found = [inputs(schema, name, file, torch.arange(batch.num_requests)) for name in ("encode", "score")]
    slots = torch.arange(next(iter(found[1].values())).shape[1])
    return found, slots < file["candidate.ends"].diff()[:, None]


@pytest.mark.parametrize("name", EXPORTED)
@torch.no_grad()
def test_padded_halves_are_the_model(name: str) -> None:
    model, rows, batch = built(name), batches.make_rows(), batches.make_batch(EMPTY)
    (requests, candidates), there = padded(batch, model)
    encode = EncodeHalf(model, MANIFEST, HALVES[0])
    state = encode(rows, requests)
    assert encode.rebuild is not None and why_not(model) is None
    scores, logits = ScoreHalf(model, encode.rebuild, HALVES[1], PLAIN)(rows, state, candidates)
    torch.testing.assert_close(logits[there], model(batch, rows))
    torch.testing.assert_close(scores, logits.double().sigmoid())


@pytest.mark.parametrize("name", IN_TURN + CHOSEN + PACKED)
def test_others_are_refused_by_name(name: str) -> None:
    reason, options = why_not(built(name)), CASES[name]
    chosen = {"model.sequence.kind": options["sequence"]["kind"]} if "sequence" in options else {}
    ((setting, kind),) = (chosen or {"model.kind": options["kind"]}).items()
    assert reason is not None and reason.startswith(f"{setting} is {kind}: ")


def check_graphs(name: str) -> None:
    """Graphs made from inputs of zeros give what the model gives, for other sizes and for one request."""
    model, rows = built(name), {t: r.detach() for t, r in batches.make_rows().items()}
    programs = make_programs(model, MANIFEST, rows, *HALVES, PLAIN)
    encode, score = programs.encode.module(), programs.score.module()
    for lengths, counts in ((EMPTY, [1, 4, 1, 3, 2, 2]), ({"view": [1], "buy": [0]}, [1])):
        batch = batches.make_batch(lengths, counts, seed=5)
        (requests, candidates), there = padded(batch, model)
        with torch.no_grad():
            _scores, logits = score(rows, encode(rows, requests), candidates)
            torch.testing.assert_close(logits[there], model(batch, rows))


def test_graphs_are_the_model() -> None:
    check_graphs("one layer")


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_of_every_part(name: str) -> None:
    check_graphs(name)


def parts(names: list[str]) -> set[type]:
    """The classes of our modules in some models."""
    found = {type(module) for name in names for module in built(name).modules()}
    return {kind for kind in found if kind.__module__.startswith("ctr.")}


def test_no_part_is_without_a_graph() -> None:
    """A new block of a model that can be exported asks for a case among the graphs."""
    assert parts(EXPORTED) == parts(GRAPHS)
