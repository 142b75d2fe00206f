"""Options: each kind of model has its own; what would change nothing is refused, by name."""

from __future__ import annotations

from typing import Any

import pytest

from ctr.config import RunConfig, parse_config
from ctr.models.registry import MODELS, model_config
from ctr.options.kinds import differing
from ctr.options.overrides import change
from ctr.runs.identity import completed, identity
from features.errors import ConfigError
from features.safe_yaml import parse_yaml
from tests.ctr import batches

# What a resolved configuration held before each kind had options of its own: those of all, most at defaults.
BEFORE = """
kind: hyformer
d_model: 64
layers: 2
heads: 4
expansion: 2.0
dropout: 0.1
feature_dropout: 0.0
tokenizer: {kind: semantic, tokens: 4, hidden: 0}
encoder: {kind: longer, recent: 30, expansion: 2.0, architecture: null, options: {}}
longer: {merge: 1, inner_layers: 0, queries: recent, num_queries: 32, cls_tokens: 1, events_see_request_globals: false}
two_stage: {mixer_layers: 2, global_tokens: true}
ngram: {fields: [], max_order: 3, tables_per_order: 2, rows: 50000, dim: 0}
token_filter: {mode: 'off', domains: [], by: classifier, hidden: 0, threshold: 0.5}
queries: {}
default_queries: 1
norm: layer
attention_sink: false
aligned_start: false
pools: all
query_inputs: all
merge_sequences: false
update_ns_tokens: true
head_reads: all
head_hidden: [64]
dense_bins: 8
linear_shortcut: false
time_gaps: true
time_buckets: 32
positions: 0
"""  # noqa: E501

# Each was accepted before and changed nothing: kind, path of the option, a value that is no default, and what
# the message must say.
DEAD: list[tuple[str, str, Any, str]] = [
    *[
        (kind, path, value, f"is an option of kind hyformer, not of kind {kind}")
        for kind in ("longer", "two_stage")
        for path, value in [
            ("queries", {"view": 2}),
            ("default_queries", 2),
            ("pools", "none"),
            ("query_inputs", "candidate"),
            ("merge_sequences", True),
            ("update_ns_tokens", False),
            ("encoder_input", "events"),
            ("attention_sink", True),
            ("decoding_residual", False),
        ]
    ],
    ("longer", "head_reads", "queries", "only kind hyformer allows this value"),
    ("two_stage", "head_reads", "queries", "only kind hyformer allows this value"),
    ("longer", "encoder.kind", "swiglu", "is an option of kind hyformer or two_stage, not of kind longer"),
    ("longer", "encoder.recent", 3, "is an option of kind hyformer or two_stage, not of kind longer"),
    ("two_stage", "encoder.kind", "swiglu", "only encoder before LONGER is of kind library"),
    ("two_stage", "encoder.recent", 3, "only encoder before LONGER is of kind library"),
    *[
        ("hyformer", f"longer.{path}", value, "is an option of kind longer")
        for path, value in [
            ("merge", 2),
            ("inner_layers", 1),
            ("queries", "uniform"),
            ("num_queries", 3),
            ("cls_tokens", 2),
            ("events_see_request_globals", True),
        ]
    ],
    ("two_stage", "longer.events_see_request_globals", True, "not of kind two_stage"),
    *[
        (kind, f"two_stage.{path}", value, f"is an option of kind two_stage, not of kind {kind}")
        for kind in ("hyformer", "longer")
        for path, value in [("mixer_layers", 3), ("global_tokens", False)]
    ],
    ("hyformer", "tokenizer.tokens", 3, "is an option of kind auto, not of kind semantic"),
    ("hyformer", "tokenizer", {"kind": "auto", "hidden": 3}, "is an option of kind semantic"),
    ("hyformer", "encoder", {"kind": "swiglu", "recent": 3}, "is an option of kind longer"),
    ("hyformer", "encoder", {"kind": "transformer", "recent": 3}, "is an option of kind longer"),
    ("hyformer", "encoder.architecture", "bert", "is an option of kind library, not of kind longer"),
    ("hyformer", "encoder.options", {"a": 1}, "is an option of kind library, not of kind longer"),
    *[
        ("longer", f"ngram.{path}", value, "fields names no field to make n-grams of, so that")
        for path, value in [("max_order", 2), ("tables_per_order", 1), ("rows", 9), ("dim", 3)]
    ],
    *[
        ("two_stage", f"token_filter.{path}", value, "mode off filters no event, so that")
        for path, value in [("domains", ["view"]), ("by", "dwell"), ("hidden", 3), ("threshold", 0.1)]
    ],
    ("longer", "token_filter", {"mode": "remove", "by": "dwell", "hidden": 3}, "a layer of the classifier"),
    ("longer", "time_buckets", 3, "time_gaps false shows no gap"),
    ("hyformer", "update_ns_tokens", False, "layers 1 has no next layer"),
    ("hyformer", "pools", "own", "whose own pool is all there is"),
    ("longer", "longer.queries", "learnable", "layers 1 has no next layer for the query events"),
    ("two_stage", "longer.queries", "uniform", "layers 1 has no next layer for the query events"),
]  # fmt: skip
BESIDE: dict[str, dict[str, Any]] = {  # what makes them dead, beside the kind
    "time_gaps false shows no gap": {"time_gaps": False},
    "layers 1 has no next layer": {"layers": 1},
    "layers 1 has no next layer for the query events": {"layers": 1},
    "whose own pool is all there is": {"merge_sequences": True},
}


def nested(path: str, value: Any) -> dict[str, Any]:
    section, _, name = path.rpartition(".")
    return {section: {name: value}} if section else {name: value}


@pytest.mark.parametrize(("kind", "path", "value", "message"), DEAD)
def test_an_option_that_changes_nothing_is_refused(kind: str, path: str, value: Any, message: str) -> None:
    options = {"kind": kind, **BESIDE.get(message, {}), **nested(path, value)}
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config({"dataset": "d", "run": "r", "model": options})
    assert f"model.{path.partition('.')[0]}" in str(caught.value) or path.split(".")[-1] in str(caught.value)


MODELS_OF_BEFORE = ("hyformer", "longer", "two_stage")


def model_of_before(kind: str) -> tuple[dict[str, Any], RunConfig]:
    """The section `model` of a run of before, and what it is read as."""
    model = parse_yaml(BEFORE, "before") | {"kind": kind}
    if kind != "hyformer":
        model["encoder"]["recent"] = 50
    return model, parse_config({"dataset": "d", "run": "r", "model": model})


@pytest.mark.parametrize("kind", MODELS_OF_BEFORE)
def test_a_configuration_of_before_is_read_as_it_was_meant(kind: str) -> None:
    _, config = model_of_before(kind)
    said = differing(config.model, model_config())
    assert said.pop("kind", "hyformer") == kind
    recent = {"encoder": {"recent": 30}} if kind == "hyformer" else {}
    assert said == {"dropout": 0.1, "dense_bins": 8, **recent}
    dumped = config.model_dump(mode="json")["model"]
    assert ("longer" in dumped, "two_stage" in dumped) == (kind != "hyformer", kind == "two_stage")
    assert parse_config({"dataset": "d", "run": "r", "model": dumped}) == config


@pytest.mark.parametrize("kind", MODELS_OF_BEFORE)
def test_the_identity_in_a_checkpoint_of_before_is_equal(kind: str) -> None:
    """Also where options without effect had been set: they decided nothing."""
    model, config = model_of_before(kind)
    now = identity(config, batches.manifest())
    before = {**now, "config": {**now["config"], "model": model}}
    assert completed(before) == now
    model["ngram"]["rows"] = 7
    if kind == "hyformer":
        model["longer"]["num_queries"] = 50
    else:
        model |= {"default_queries": 3, "encoder": {**model["encoder"], "kind": "swiglu"}}
    assert completed(before) == now
    model["d_model"] = 32
    assert completed(before) != now


def test_an_unknown_key_is_unknown_whatever_the_kind() -> None:
    for kind in MODELS:
        with pytest.raises(ConfigError, match=r"model\.depth: Extra inputs.*check its spelling"):
            parse_config({"dataset": "d", "run": "r", "model": {"kind": kind, "depth": 3}})


def changed(model: dict[str, Any], *overrides: str) -> dict[str, Any]:
    data = {"dataset": "d", "run": "r", "model": model}
    result: dict[str, Any] = change(RunConfig, data, list(overrides))["model"]
    assert data["model"] == model and parse_config({"dataset": "d", "run": "r", "model": result})
    return result


def test_another_kind_leaves_the_options_of_the_old_one_behind() -> None:
    hyformer = {"layers": 3, "pools": "own", "encoder": {"kind": "longer", "recent": 5, "expansion": 4}}
    assert changed(hyformer, "model.kind=longer") == {"layers": 3, "kind": "longer"}
    assert changed(hyformer, "model.kind=hyformer") == {**hyformer, "kind": "hyformer"}
    assert changed(hyformer, "model.kind=two_stage", "model.longer.merge=2") == {
        "layers": 3, "kind": "two_stage", "longer": {"merge": 2},
    }  # fmt: skip
    assert changed(hyformer, "model.encoder.kind=swiglu")["encoder"] == {"kind": "swiglu", "expansion": 4}
    library = {"encoder": {"kind": "library", "architecture": "bert"}}
    assert changed(library, "model.kind=two_stage") == {"kind": "two_stage", **library}
    longer = {"kind": "longer", "longer": {"merge": 2, "events_see_request_globals": True}}
    assert changed(longer, "model.kind=two_stage")["longer"] == {"merge": 2}
    assert changed({"tokenizer": {"hidden": 3}}, "model.tokenizer.kind=auto")["tokenizer"] == {"kind": "auto"}


def test_a_choice_that_ends_others_leaves_them_behind() -> None:
    filtered = {"token_filter": {"mode": "remove", "by": "dwell", "threshold": 0.2}}
    assert changed(filtered, "model.token_filter.mode=off") == {"token_filter": {"mode": "off"}}
    assert changed({"time_buckets": 4}, "model.time_gaps=false") == {"time_gaps": False}


def test_what_the_overrides_name_themselves_is_still_refused() -> None:
    for overrides in (
        ["model.kind=longer", "model.pools=own"],
        ["model.pools=own", "model.kind=longer"],
        ["model.encoder.recent=3", "model.encoder.kind=swiglu"],
    ):
        data = change(RunConfig, {"dataset": "d", "run": "r", "model": {}}, overrides)
        with pytest.raises(ConfigError, match="is an option of kind"):
            parse_config(data)
