"""Plans become variants: names mean what they say, equal views read equal, mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctr.ablate.expand import Variant, expand
from ctr.ablate.plan import parse_plan
from ctr.ablate.select import complement, members
from features.errors import ConfigError
from tests.ctr import batches

MODEL = {"d_model": 12, "heads": 2}
BASE: dict[str, Any] = {"dataset": "d", "model": MODEL, "loader": {"max_len": {"view": 8}}}
MANIFEST = batches.manifest()


def variants(**content: Any) -> dict[str, Variant]:
    plan = parse_plan({"name": "p", "base": BASE, **content})
    return {v.name: v for v in expand(plan, MANIFEST)}


def dropped(**change: Any) -> list[str]:
    return variants(variants={"v": change})["v"].config.drop


def test_names_mean_features_domains_sides_and_groups() -> None:
    assert members(MANIFEST, ["group:user"]) == {"user", "interests", "age"}
    assert members(MANIFEST, ["view.*"]) == {"view.item", "view.brand", "view.tags", "view.dwell"}
    assert members(MANIFEST, ["tag*", "buy"]) == {"tags", "buy"}
    with pytest.raises(ConfigError, match="group:usr"):
        members(MANIFEST, ["group:usr"])


def test_keep_is_the_complement_of_drop() -> None:
    assert dropped(keep=["group:item", "view"]) == ["age", "buy", "interests", "user"]
    assert complement(MANIFEST, ["group:*", "view.item"]) >= {"view.brand", "view.dwell", "buy"}
    assert dropped(drop=["buy", "buy.item", "user"]) == dropped(drop=["user", "buy"]) == ["buy", "user"]


def test_one_at_a_time_leaves_each_out_and_leave_one_in_the_others() -> None:
    found = variants(one_at_a_time=["group:user", "view"], leave_one_in="domains")
    assert list(found) == ["base", "without-group-user", "without-view", "only-view", "only-buy"]
    assert found["without-group-user"].config.drop == ["age", "interests", "user"]
    assert found["only-view"].config.drop == ["buy"]
    assert found["without-view"].config.loader.max_len == {}  # of a domain that is gone


def test_a_grid_names_each_point() -> None:
    found = variants(grid={"model.layers": [1, 2], "train.epochs": [5]})
    assert list(found) == ["base", "layers-1_epochs-5", "layers-2_epochs-5"]
    assert found["layers-2_epochs-5"].config.model.layers == 2


def test_models_are_an_axis_of_named_points() -> None:
    models = {"own": {}, "din": {"kind": "grid", "sequence.kind": "din"}}
    found = variants(grid={"model": models, "embedding.dim": [4, 6]})
    assert list(found) == ["base", "own_dim-4", "own_dim-6", "din_dim-4", "din_dim-6"]
    assert found["din_dim-6"].config.model.kind == "grid"
    assert (found["own_dim-4"].config.model.kind, found["own_dim-4"].config.embedding.dim) == ("hyformer", 4)
    with pytest.raises(ConfigError, match="point of a grid"):
        variants(grid={"model": {"../x": {}}})
    with pytest.raises(ConfigError, match="at least 1"):
        variants(grid={"model": {}})


def test_lengths_fractions_widths_and_settings() -> None:
    found = variants(
        variants={
            "short": {"max_len": 5},
            "view": {"max_len": {"view": 9}},
            "less": {"train_fraction": 0.25, "width": 7, "set": ["model.layers=3"]},
        }
    )
    assert found["short"].config.loader.max_len == {"view": 5, "buy": 5}
    assert found["view"].config.loader.max_len == {"view": 9}
    less = found["less"].config
    assert (less.period.train_fraction, less.embedding.dim, less.model.layers) == (0.25, 7, 3)
    assert found["less"].changes == "model.layers=3; train_fraction 0.25; width 7"


def test_what_the_base_drops_stays_dropped_and_cannot_be_permuted() -> None:
    base = {**BASE, "drop": ["user"]}
    assert variants(base=base, variants={"v": {"drop": ["age"]}})["v"].config.drop == ["age", "user"]
    with pytest.raises(ConfigError, match="'user'"):
        variants(base=base, variants={"v": {"permute": ["user"]}})


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({}, ["something to compare"]),
        ({"variants": {"a": {"dropp": ["x"]}}}, ["variants.a.dropp"]),
        ({"variants": {"../a": {}}}, ["'../a'"]),
        ({"variants": {"base": {}}}, ["'base'"]),
        ({"variants": {"a": {"set": ["model.layer=1"]}}}, ["variant a", "model.layer"]),
        ({"variants": {"a": {}}, "seeds": [1, 1]}, ["seeds", "[1, 1]"]),
        ({"variants": {"a": {}}, "base": {**BASE, "period": {"windows": 2}}}, ["windows", "2"]),
        ({"one_at_a_time": "feature"}, ["one_at_a_time"]),
        ({"grid": {"model.layers": []}}, ["grid"]),
    ],
)
def test_mistakes_are_named(content: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        variants(**content)
    assert all(name in str(caught.value) for name in names)


DECIDED = {
    "seed": (7, "`seeds`"),
    "run": ("zzz", "`out`"),
    "dataset": ("other", r"`set\.dataset`"),
    "period.windows": (3, "`windows`"),
    "period.window": (0, "`windows`"),
    "tracking.uri": (None, r"`set\.tracking`"),
}


@pytest.mark.parametrize("path", DECIDED)
def test_a_variant_that_would_change_nothing_since_the_plan_decides_is_refused(path: str) -> None:
    value, by = DECIDED[path]
    section, _, option = path.partition(".")
    ways: list[dict[str, Any]] = [
        {"variants": {"v": {"set": {path: value}}}},
        {"variants": {"v": {"set": ["train.epochs=2", f" {path} = null"]}}},
        {"grid": {path: [value]}},
    ]
    if option:
        ways.append({"variants": {"v": {"set": {section: {option: value}}}}})
        ways.append({"grid": {section: {"point": {option: value}}}})
    for way in ways:
        with pytest.raises(ConfigError, match=f"must not set {path}: .*{by}"):
            variants(**way)


@pytest.mark.parametrize("path", ["seed", "run"])
def test_what_a_plan_says_for_all_is_not_said_of_its_base(path: str) -> None:
    with pytest.raises(ConfigError, match=f"`set` of plan p must not set {path}: .*{DECIDED[path][1]}"):
        variants(set={path: DECIDED[path][0]}, variants={"v": {"drop": ["user"]}})
    found = variants(
        base={**BASE, path: DECIDED[path][0]}, set={"dataset": "e"}, variants={"v": {"drop": ["user"]}}
    )
    assert found["v"].config.dataset == "e"  # a base that trains on its own has both


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"drop": ["user"], "set": {"drop": ["age"]}}, "drop"),
        ({"keep": ["user", "view"], "set": ["drop=[age]"]}, "drop"),
        ({"width": 7, "set": {"embedding": {"dim": 9}}}, "embedding.dim"),
        ({"train_fraction": 0.5, "set": {"period.train_fraction": 0.2}}, "period.train_fraction"),
        ({"max_len": 4, "set": {"loader.max_len": {"view": 5}}}, "loader.max_len.view"),
    ],
)
def test_what_a_variant_says_twice_is_refused(change: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match=f"variant v must not set {path}: its `.*` says it"):
        variants(variants={"v": change})


def test_a_base_is_found_beside_its_plan(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("dataset: d\nrun: r\nseed: 9\n")
    plan = parse_plan({"name": "p", "base": "run.yaml", "variants": {"a": {}}}, folder=tmp_path)
    assert expand(plan, MANIFEST)[0].config.seed == 9
