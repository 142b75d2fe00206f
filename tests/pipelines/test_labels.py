"""Late labels taken for negatives mislead a model, and importance weights correct it; see late_labels.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.late_labels import judged


@pytest.mark.slow
def test_late_labels_against_the_chances_they_were_drawn_with(tmp_path: Path) -> None:
    found = judged(tmp_path, ["naive", "late: importance"])
    naive, weighted, best = (found[name][0] for name in ("naive", "late: importance", "as they turn out"))
    assert naive.calibration < 0.9
    assert abs(weighted.calibration - 1) < 0.05
    assert best.excess < weighted.excess < naive.excess
