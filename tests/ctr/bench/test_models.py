"""Models beside plain torch: a line and a target for each, from the same logits."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr.bench.plain.cases import cases
from ctr.bench.results import Settings
from ctr.bench.suites import models

# With losses of their own; with tokens that are split anew; with two tokens an event.
PICKED = ("DIEN", "SIM, soft", "RankMixer", "HSTU")


def test_every_model_has_a_line_and_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "cases", lambda manifest: {name: cases(manifest)[name] for name in PICKED})
    result = models.run(Settings(scratch=tmp_path, quick=True, rounds=1, say=lambda text: None))
    (table,) = result.tables
    assert [row[0] for row in table.rows] == list(PICKED)
    assert all(isinstance(row[4], float) and row[4] < 1e-5 for row in table.rows)
    assert [bound.bound for bound in result.targets] == [models.LEAST] * len(PICKED)
    assert [bound.measured for bound in result.targets] == [row[3] for row in table.rows]
