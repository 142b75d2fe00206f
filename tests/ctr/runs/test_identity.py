"""What a checkpoint must have in common with the run that goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctr.config import MANY_REQUESTS, RunConfig, load_config, parse_config
from ctr.runs.identity import completed, identity, on_other_data
from ctr.runs.saved_config import load_saved_config
from features.dataset import SplitInfo
from features.safe_yaml import dump_yaml
from tests.ctr import batches


def config(**changes: Any) -> RunConfig:
    return parse_config({"dataset": "d", "run": "r", **changes})


def test_how_tables_are_held_is_free() -> None:
    own = identity(config(), batches.manifest())
    for embedding in ({"engine": "torchrec"}, {"sharding": "row_wise"}, {"table_sharding": {"item": "auto"}}):
        assert identity(config(embedding=embedding), batches.manifest()) == own
    assert identity(config(embedding={"lr": 0.1}), batches.manifest()) != own


def test_in_how_many_parts_a_step_computes_is_free() -> None:
    own = identity(config(), batches.manifest())
    assert identity(config(loader={"micro_batches": 4}), batches.manifest()) == own


def test_a_run_from_before_an_option_goes_on_with_its_default() -> None:
    manifest = batches.manifest()
    found = identity(config(), manifest)
    del found["config"]["optimizer"]["dense_staleness"]
    found["config"]["embedding"]["engine"] = "fbgemm"  # it once counted
    assert completed(found) == identity(config(), manifest)
    assert completed(found) != identity(config(optimizer={"dense_staleness": 1}), manifest)


def test_a_run_from_before_plans_goes_on_only_by_the_plan_it_had() -> None:
    """Of so many requests the plan is another one now, unless it is asked for."""
    manifest = batches.manifest()
    many = {"requests": MANY_REQUESTS + 1, "impressions": 0, "positives": 0}
    manifest.splits["train"] = SplitInfo(**many, time_range=None, clock_range=None)
    asked = identity(config(loader={"plan": "requests"}), manifest)
    found = identity(config(), batches.manifest())
    assert "plan" not in found["config"]["loader"] and completed(found)["config"] == asked["config"]
    own = identity(config(), manifest)
    assert own["config"]["loader"]["plan"] == "windows" and completed(own) == own
    assert completed(found) != own
    assert on_other_data(identity(config(), batches.manifest()), own) == own
    assert on_other_data(own, found) == found


def test_a_run_from_before_options_without_effect_were_refused_goes_on() -> None:
    """Row-wise Adagrad has no betas: what they were changed nothing."""
    found = identity(config(), batches.manifest())
    found["config"]["embedding"]["betas"] = [0.8, 0.99]
    del found["config"]["embedding"]["optimizer_options"]
    assert completed(found) == identity(config(), batches.manifest())
    found["config"]["embedding"]["optimizer"] = "adam"
    assert completed(found) != identity(config(embedding={"optimizer": "adam"}), batches.manifest())


def test_a_run_from_before_tables_were_drawn_anew_by_default_goes_on_without() -> None:
    """`embedding.restart` came with the value [], and was not there at all before that."""
    manifest, several = batches.manifest(), {"train": {"epochs": 2}}
    without = identity(config(**several, embedding={"restart": []}), manifest)
    found = identity(config(**several), manifest)
    assert found["config"]["embedding"]["restart"] == "auto"
    befores: tuple[list[str] | None, ...] = ([], None)
    for before in befores:
        found["config"]["embedding"]["restart"] = before
        if before is None:
            del found["config"]["embedding"]["restart"]
        assert completed(found) == without != identity(config(**several), manifest)
    one = identity(config(), manifest)  # of one epoch nothing is drawn anew: it goes on
    assert one == identity(config(embedding={"restart": []}), manifest)


def test_a_saved_configuration_from_before_is_read_as_it_was_meant(tmp_path: Path) -> None:
    plain = config(train={"epochs": 2}).model_dump(mode="json")
    path = tmp_path / "config.yaml"
    for restart, meant in (("auto", "auto"), ([], []), (["item"], ["item"]), (None, [])):
        plain["embedding"]["restart"] = restart
        if restart is None:
            del plain["embedding"]["restart"]
        path.write_text(dump_yaml(plain))
        assert load_saved_config(path).embedding.restart == meant
    assert load_config(path).embedding.restart == "auto"  # a person's file that does not name it


def test_what_is_no_configuration_is_left_as_it_is() -> None:
    for found in ({}, {"config": 3}, {"config": {"optimizer": {"momentum": 1}}, "dataset": "x"}):
        assert completed(found) == found
