"""The door for a model: one file and one line are all that each command needs to know of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ctr.batch import take_candidates
from ctr.config import load_config
from ctr.models.registry import MODELS, model_config
from ctr.serving.append import why_not
from features.errors import ConfigError
from pipelines.ablate import ablate
from pipelines.ablate_worker import work
from pipelines.cli import main
from tests.ctr import batches
from tests.ctr.ablate.small import Inline, open_small, small_log
from tests.ctr.models.test_conformance import make_model
from tests.ctr.reference.parity import assert_parity
from tests.ctr.serving.runs import Built
from tests.ctr.tiny_run import tiny_dataset, write_config

DIN = ("model.kind=din", "model.attention_hidden=4")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "din", "tests.ctr.models.toy_din.Din")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = main([str(a) for a in arguments])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return shown.out


def test_its_options_are_its_own() -> None:
    assert model_config(kind="din", attention_hidden=3).model_dump()["attention_hidden"] == 3
    with pytest.raises(ConfigError, match="attention_hidden: is an option of kind din, not of kind longer"):
        model_config(kind="longer", attention_hidden=3)
    with pytest.raises(ConfigError, match="pools: is an option of kind hyformer, not of kind din"):
        model_config(kind="din", pools="own")
    assert list(MODELS)[-1] == "din"
    with pytest.raises(ConfigError, match=f"kind: must be one of {', '.join(MODELS)}, got"):
        model_config(kind="dien")


def test_a_request_is_shared_and_scored_in_parts() -> None:
    """What tests/ctr/models/test_conformance.py and tests/ctr/serving/test_halves.py ask of every model."""
    model, rows, batch = make_model({"kind": "din"}), batches.make_rows(), batches.make_batch()
    assert_parity([model(batch, rows)], [model(batches.per_row(batch), rows)], model, list(rows.values()))
    state = model.encode(batch, rows)
    parts = [
        model.score(state, take_candidates(batch, picked), rows)
        for picked in torch.arange(batch.num_rows).split(3)
    ]
    torch.testing.assert_close(torch.cat(parts), model(batch, rows))


def test_it_trains_is_evaluated_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tiny_dataset(tmp_path)
    for name, options in (("hyformer", ()), ("din", DIN)):
        config = write_config(tmp_path / f"{name}.yaml", dataset, tmp_path / name, *options)
        run(capsys, "train", config)
        assert "AUC" in run(capsys, "evaluate", tmp_path / name)
    assert load_config(tmp_path / "din" / "config.yaml").model == model_config(
        kind="din", attention_hidden=4, d_model=12, heads=2, layers=1, head_hidden=[8]
    )
    pair = (tmp_path / "hyformer", tmp_path / "din")
    assert "din" in run(capsys, "evaluate", "--compare", *pair, "--out", tmp_path / "compared")


def test_it_is_scored_from_cached_states_and_says_what_it_lacks(tmp_path: Path) -> None:
    built = Built(tiny_dataset(tmp_path), *DIN, "model.time_gaps=false")
    assert why_not(built.state.model) == "model.kind is din: it does not say how"
    with pytest.raises(ConfigError, match=r"model\.kind is din"):
        built.scorer(append=True)
    with pytest.raises(ConfigError, match=r"train.recompute needs a model that names its layers, got Din"):
        Built(built.dataset.root, *DIN, "train.recompute=true")


@pytest.mark.slow
def test_it_is_an_axis_of_an_ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of the base's kind that it lacks are left behind."""
    monkeypatch.setattr("ctr.ablate.report.draw_all", lambda results: {})
    dataset, out = small_log(tmp_path), tmp_path / "runs" / "ablation"
    changes: dict[str, Any] = {"set": {"model.pools": "own"}, "grid": {"model.kind": ["longer", "din"]}}
    plan = open_small(dataset, out, variants={}, windows=1, **changes)
    assert ablate(plan, launch=lambda task: Inline(task, work), workers=1) == 0
    found = json.loads((out / "report" / "results.json").read_text())
    assert [v["name"] for v in found["variants"]] == ["base", "kind-longer", "kind-din"]


@pytest.mark.slow
def test_it_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in set(MODELS) - {"din", "hyformer"}:  # measured by tests/pipelines/test_bench.py
        monkeypatch.delitem(MODELS, kind)
    sizes = ("--rows-per-request", 1, "--requests", 2, "--out", tmp_path / "bench")
    run(capsys, "bench", "--quick", "train", *sizes)
    (table, *_) = json.loads((tmp_path / "bench" / "bench.json").read_text())["suites"][0]["tables"]
    assert "DIN" in [row[0] for row in table["rows"]]
