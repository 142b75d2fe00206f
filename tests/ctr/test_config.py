"""The configuration: every knob of a model does something, wrong values are named, none changes in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ctr.build import build_model, identity, pick_device
from ctr.config import RunConfig, dump_config, parse_config
from ctr.models.registry import KINDS, model_config
from ctr.options.knobs import Knobs
from ctr.tokens.ngram import ngram_fields
from features.errors import ConfigError
from features.safe_yaml import parse_yaml
from tests.ctr import batches
from tests.ctr.models.grid_knobs import ELSEWHERE, GRID_KNOBS
from tests.ctr.models.unified_cases import UNIFIED_KNOBS
from tests.ctr.ngram_batches import add_ngrams, ngram_rows
from tests.sections import sections_of

BASE: dict[str, Any] = {"d_model": 12, "heads": 2}
HYFORMER: dict[str, Any] = {"queries": {"view": 2}, "encoder": {"recent": 4}}
LONGER: dict[str, Any] = {"kind": "longer", "longer": {"num_queries": 3}, "layers": 3}
TWO_STAGE: dict[str, Any] = {"kind": "two_stage"}
LIBRARY: dict[str, Any] = {"encoder": {"kind": "library", "architecture": "bert"}}
NGRAM: dict[str, Any] = {"ngram": {"fields": ["view.item"], "rows": 90, "dim": 2}}
CLASSIFIER: dict[str, Any] = {"token_filter": {"mode": "remove", "domains": ["view"]}}
BY_FIELD: dict[str, Any] = {"token_filter": {**CLASSIFIER["token_filter"], "by": "dwell"}}
GATES: dict[str, Any] = {"l1": 0.01}
# knob → (the options it needs to matter, another value than theirs)
OF_ALL: dict[str, tuple[dict[str, Any], Any]] = {
    "kind": ({"d_model": 60}, "two_stage"),
    "d_model": ({}, 24),
    "layers": ({}, 3),
    "heads": ({}, 3),
    "expansion": ({}, 3.0),
    "dropout": ({}, 0.5),
    "feature_dropout": ({}, 0.5),
    "column_gates": ({}, GATES),
    "tokenizer.kind": ({"d_model": 84}, "auto"),
    "tokenizer.tokens": ({"tokenizer": {"kind": "auto", "tokens": 3}}, 1),
    "tokenizer.hidden": ({}, 4),
    "encoder.kind": ({"encoder": {}}, "swiglu"),
    "encoder.recent": ({}, 2),
    "encoder.expansion": ({}, 1.0),
    "encoder.architecture": (LIBRARY, "gpt2"),
    "encoder.options": (LIBRARY, {"hidden_act": "relu"}),
    "longer.merge": (LONGER, 2),
    "longer.inner_layers": (LONGER, 1),
    "longer.queries": (LONGER, "uniform"),
    "longer.num_queries": (LONGER, 2),
    "longer.cls_tokens": (LONGER, 2),
    "longer.events_see_request_globals": (LONGER, True),
    "two_stage.mixer_layers": (TWO_STAGE, 1),
    "two_stage.global_tokens": (TWO_STAGE, False),
    "ngram.fields": (NGRAM, ["buy.item"]),
    "ngram.max_order": (NGRAM, 2),
    "ngram.tables_per_order": (NGRAM, 1),
    "ngram.rows": (NGRAM, 130),
    "ngram.dim": (NGRAM, 3),
    "token_filter.mode": ({"token_filter": {"mode": "remove"}}, "off"),
    "token_filter.domains": (CLASSIFIER, ["view", "buy"]),
    "token_filter.by": (BY_FIELD, "classifier"),
    "token_filter.hidden": (CLASSIFIER, 2),
    "token_filter.threshold": (BY_FIELD, 0.1),
    "queries": ({}, {"buy": 2}),
    "default_queries": ({"queries": {}, "d_model": 35 * 2}, 2),
    "norm": ({}, "rms"),
    "encoder_input": ({}, "events"),
    "pools": ({}, "own"),
    "query_inputs": ({}, "candidate"),
    "attention_sink": ({}, True),
    "decoding_residual": ({}, False),
    "aligned_start": ({}, True),
    "merge_sequences": ({"queries": {}, "default_queries": 3, "d_model": 18}, True),
    "update_ns_tokens": ({}, False),
    "head_reads": ({}, "mean"),
    "head_hidden": ({}, [5]),
    "dense_bins": ({}, 2),
    "linear_shortcut": ({}, True),
    "time_gaps": ({}, False),
    "time_buckets": ({}, 3),
    "positions": ({}, 8),
}
KNOBS = OF_ALL | GRID_KNOBS | UNIFIED_KNOBS


def leaves(kinds: Iterable[type[Knobs]], prefix: str = "") -> set[str]:
    """Every option by its path, those of all kinds of each section."""
    found = set()
    for options in kinds:
        for name, field in options.model_fields.items():
            sections = sections_of(field)
            found |= leaves(sections, f"{prefix}{name}.") if sections else {f"{prefix}{name}"}
    return found - {"encoder"}  # of two_stage, one of the kinds that hyformer has


def merged(options: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    section, _, rest = path.partition(".")
    return {**options, section: merged(options.get(section, {}), rest, value) if rest else value}


def outcome(options: dict[str, Any]) -> tuple[int, Tensor]:
    """Number of parameters, and logits and the model's own loss in training mode, of one seed."""
    config = model_config(**options)
    model = build_model(batches.manifest(), config, dim=batches.DIM, seed=1).double()
    ngrams = ngram_fields(batches.manifest(), config.ngram, dim=batches.DIM)
    batch = add_ngrams(batches.make_batch(), ngrams)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # also those that start at zero
            parameter.add_(0.1)
        logits = model(batch, batches.make_rows() | ngram_rows(batch, ngrams))
        own = [] if model.extra_loss is None else [model.extra_loss]
        return sum(p.numel() for p in model.parameters()), torch.cat([logits, *own])


def test_the_table_names_every_knob() -> None:
    assert sorted({*KNOBS, *ELSEWHERE}) == sorted(leaves(KINDS.kinds.values()))


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_of_a_model_changes_it(knob: str) -> None:
    needs, value = KNOBS[knob]
    options = BASE | ({} if "kind" in needs or knob == "kind" else HYFORMER) | needs
    (size, before), (other_size, after) = outcome(options), outcome(merged(options, knob, value))
    assert size != other_size or not torch.allclose(before, after, atol=1e-6)


def test_configurations_are_equal_through_yaml_and_never_change() -> None:
    config = parse_config({"dataset": "d", "run": "r", "model": BASE | HYFORMER, "tracking": {"uri": None}})
    assert parse_config(parse_yaml(dump_config(config), "text")) == config
    with pytest.raises(ValidationError, match="frozen"):
        config.model.d_model = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"run": "r"}, ["dataset"]),
        ({"dataset": "d", "run": "r", "train": {"epochs": 0}}, ["train.epochs", "0"]),
        ({"dataset": "d", "run": "r", "train": {"final_fit": True}}, ["train.final_fit"]),
        ({"dataset": "d", "run": "r", "modle": {}}, ["modle"]),
    ],
)
def test_every_wrong_key_is_named(data: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(data, what="run.yaml")
    assert all(name in str(caught.value) for name in ["run.yaml", *names])


def test_identity_holds_what_decides_the_course_and_only_that() -> None:
    """A checkpoint may go on with other paths, threads and tracking, not with another model or data order."""
    plain = {"dataset": "d", "run": "r"}
    free = {"tracking": {"uri": None}, "loader": {"workers": 4}, "train": {"keep_last": 1, "device": "cpu"}}
    manifest = batches.manifest()
    own = identity(RunConfig(**plain), manifest)
    assert identity(RunConfig(dataset="other", run="other", **free), manifest) == own
    for change in (
        {"seed": 2},
        {"loader": {"window": 7}},
        {"train": {"max_steps": 9}},
        {"model": {"layers": 1}},
    ):
        assert identity(RunConfig(**{**plain, **change}), manifest) != own
    assert identity(RunConfig(**plain), batches.manifest(users=2)) != own


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            pick_device("cuda")
