"""Successive halving: who is stopped."""

from __future__ import annotations

import json
from pathlib import Path

from ctr.ablate.halving import candidates
from ctr.ablate.subruns import SubRun, Trial
from tests.ctr import batches
from tests.ctr.tiny_run import tiny_config


def test_variants_are_ranked_by_one_metric_whatever_is_their_own(tmp_path: Path) -> None:
    subruns = []
    for name, metric, auc in (("base", "auc", 0.6), ("a", "log_loss", 0.8), ("b", "auc", 0.7)):
        folder = tmp_path / name
        folder.mkdir()
        row = {"kind": "rung", "step": 1, "auc": auc, "log_loss": 0.5, "wall": {"time": 0}}
        (folder / "journal.jsonl").write_text(json.dumps(row) + "\n")
        config = tiny_config(tmp_path, folder, f"train.metric={metric}")
        subruns.append(SubRun(name, config, batches.manifest(), 1, [Trial(name, 1, 0)]))
    assert candidates(subruns, ["base", "a", "b"], "auc") == {"a": 0.8, "b": 0.7}
