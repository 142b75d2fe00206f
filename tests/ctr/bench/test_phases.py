"""Phases add up to the step, watching changes no bit of it, and everything is put back afterwards."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
import torch

from ctr.bench.phases import BACKWARD, DENSE, FORWARD, LOOKUP, SPARSE, Phases, blocks_of, watched
from ctr.bench.results import Settings
from ctr.bench.shape import Shape
from ctr.bench.suites import profile
from ctr.bench.synthetic import write_dataset
from ctr.bench.workload import Workload, bench_config, first_batches, models


def test_a_phase_inside_another_is_not_counted_twice() -> None:
    phases = Phases(clock=count().__next__)  # one second between any two looks at the clock
    with phases.of("step"), phases.of("forward"):
        for _ in range(2):
            phases.wrap("block", int)()
    assert phases.seconds == {"block": 2, "forward": 3, "step": 2}


def test_what_is_recomputed_in_the_backward_pass_belongs_to_it() -> None:
    phases = Phases(clock=count().__next__)
    with phases.of(BACKWARD), phases.of(FORWARD + "block"):
        pass
    assert phases.seconds == {BACKWARD: 1}


def test_a_phase_ends_with_the_error_that_leaves_it() -> None:
    phases = Phases(clock=count().__next__)
    with pytest.raises(ValueError), phases.of("forward"):
        int("x")
    with phases.of("after"):
        pass
    assert phases.seconds == {"forward": 1, "after": 1}


@pytest.mark.parametrize("name", models())
def test_watching_changes_nothing_and_is_undone(name: str, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", Shape(requests=8).small())
    config = bench_config(dataset, name, requests=4)
    batches = first_batches(dataset, config, 2)
    plain, seen = (Workload.build(config, dataset.manifest) for _ in range(2))
    phases = Phases()
    with watched(seen, phases):
        watched_losses = [seen.step(batch) for batch in batches]
    known = dict(phases.seconds)
    assert [plain.step(batch) for batch in batches] == watched_losses
    for expected, found in zip(plain.model.parameters(), seen.model.parameters(), strict=True):
        assert torch.equal(expected, found)
    blocks = {FORWARD + block for block in blocks_of(seen.model)}
    assert {LOOKUP, BACKWARD, SPARSE, DENSE} < set(known) and len(blocks & set(known)) > 5
    seen.step(batches[0])
    assert phases.seconds == known  # nobody looks any more
    assert "forward" not in vars(seen.model) and "lookup" not in vars(seen.tables)


def test_the_suite_tells_phases_and_operators(tmp_path: Path) -> None:
    said: list[str] = []
    result = profile.run(Settings(scratch=tmp_path, quick=True, rounds=1, requests=3, say=said.append))
    phases, operators = result.tables
    *parts, whole = phases.rows
    assert whole[0] == "whole step" and sum(float(row[1] or 0) for row in parts) == pytest.approx(whole[1])
    assert any(str(row[0]).startswith(FORWARD + "layers.encoders") for row in parts)
    assert 0 < len(operators.rows) <= profile.OPERATORS and all(
        float(row[2] or 0) > 0 for row in operators.rows
    )
    assert any(str(row[0]).startswith("`aten::") for row in operators.rows)
    assert len(said) == 2 and "20 rows a batch" not in phases.note and "15 rows a batch" in phases.note


def test_a_given_configuration_is_measured_as_it_is(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", Shape(requests=40).small())
    sections = bench_config(dataset, "LONGER", requests=3).model_dump(mode="json")
    given = {name: sections[name] for name in ("model", "embedding", "optimizer", "loader")}
    settings = Settings(
        scratch=tmp_path, dataset=dataset.root, config=given, rounds=1, requests=3, say=lambda _: None
    )
    phases, _ = profile.run(settings).tables
    assert any(row[0] == FORWARD + "Longer" for row in phases.rows), phases.rows
    assert "the configuration's model" in phases.note
