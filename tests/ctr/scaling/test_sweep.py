"""Sweeps: what a file may say, what each axis changes, and that the shipped ones can be built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctr.ablate.expand import base_config
from ctr.config import RunConfig
from ctr.scaling.sweep import Sweep, load_sweep, plan_of, sizes
from features.errors import ConfigError
from features.safe_yaml import dump_yaml, parse_yaml
from features.spec import load_spec
from tests.documents import fenced
from tests.pipelines.test_shipped_plans import CONFIGS, manifest_of

SWEEPS = sorted((CONFIGS / "scaling").glob("*.yaml"))
MANIFEST = manifest_of(load_spec(CONFIGS / "specs" / "simulator.yaml"))
BASE: dict[str, Any] = {
    "dataset": "d",
    "model": {"kind": "longer", "d_model": 16, "heads": 2, "head_hidden": [8]},
    "embedding": {"dim": 4},
    "loader": {"max_len": {"view": 40, "cart": 20, "search": 10}},
}


def configs(**content: Any) -> list[RunConfig]:
    """The runs of a sweep."""
    sweep = Sweep.model_validate({"name": "s", "base": BASE, **content})
    return [v.config for v in sizes(sweep, base_config(plan_of(sweep, Path())), MANIFEST)]


def test_history_cuts_every_domain_in_proportion() -> None:
    found = configs(axis="history", values=[2, 8, 20, 40])
    assert [c.loader.max_len for c in found] == [
        {"view": 2, "cart": 1, "search": 1},
        {"view": 8, "cart": 4, "search": 2},
        {"view": 20, "cart": 10, "search": 5},
        {"view": 40, "cart": 20, "search": 10},
    ]


def test_width_takes_the_embeddings_along() -> None:
    found = configs(axis="width", values=[8, 16, 32, 64])
    assert [(c.model.d_model, c.embedding.dim) for c in found] == [(8, 2), (16, 4), (32, 8), (64, 16)]


def test_the_other_axes_change_one_option_each() -> None:
    assert [c.model.layers for c in configs(axis="layers", values=[1, 2, 3, 4])] == [1, 2, 3, 4]
    fractions = [c.period.train_fraction for c in configs(axis="data", values=[0.1, 0.2, 0.5, 1])]
    assert fractions == [0.1, 0.2, 0.5, 1]
    found = configs(axis="model.longer.num_queries", values=[1, 2, 4, 8])
    assert [c.model.longer.num_queries for c in found] == [1, 2, 4, 8]
    points = [{"x": x, "set": {"model.layers": x, "model.d_model": 8 * x}} for x in (1, 2, 3, 4)]
    assert [(c.model.layers, c.model.d_model) for c in configs(axis="both", points=points)] == [
        (1, 8), (2, 16), (3, 24), (4, 32)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"values": []}, "either values"),
        ({"points": [{"x": 1, "set": {}}]}, "either values"),
        ({"values": [1, 3, 2, 4]}, "must ascend"),
        ({"values": [0, 1, 2, 3]}, "greater than 0"),
        ({"hold_out": 2}, "3 sizes must be left"),
        ({"metrics": ["lift"]}, "metrics"),
        ({"name": "../up"}, "a sweep name"),
        ({"windows": 2}, "windows"),
    ],
)
def test_wrong_sweeps_are_named(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    content = {"name": "s", "base": BASE, "axis": "layers", "values": [1, 2, 3, 4], **change}
    (tmp_path / "sweep.yaml").write_text(dump_yaml(content))
    with pytest.raises(ConfigError, match=word):
        load_sweep(tmp_path / "sweep.yaml")


@pytest.mark.parametrize(
    ("axis", "values", "word"),
    [
        ("history", [5, 10, 20, 400], "x-400"),
        ("data", [0.5, 1, 2, 3], "axis data"),
        ("width", [16, 17, 18, 19], "x-17"),
        ("model.depth", [1, 2, 3, 4], "depth"),
    ],
)
def test_sizes_that_make_no_run_are_named(axis: str, values: list[float], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        configs(axis=axis, values=values)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_shipped_sweep_can_be_built(path: Path) -> None:
    sweep = load_sweep(path)
    assert sweep.name == path.stem
    assert f"ctr scaling pipelines/configs/scaling/{path.name}" in path.read_text()
    base = base_config(plan_of(sweep, path.parent))
    found = [v.config for v in sizes(sweep, base, MANIFEST)]
    assert len({c.model_dump_json() for c in found}) == len(found) == 5


def test_the_page_shows_a_sweep() -> None:
    [example] = fenced(CONFIGS.parents[1] / "docs" / "scaling.md", "yaml")
    sweep = Sweep.model_validate(parse_yaml(example, "docs/scaling.md"))
    assert set(Sweep.model_fields) - sweep.model_fields_set == {"out", "points", "task"}


def test_there_are_sweeps_of_history_width_and_data() -> None:
    assert {load_sweep(path).axis for path in SWEEPS} >= {"history", "width", "data"}
