"""On a log whose truth is known, an ablation finds it; `truth.py` repeats this on many logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ctr.ablate.truth import NOISE, TRUE, is_right, verdicts


@pytest.mark.slow
def test_a_used_feature_is_found_to_hurt_and_noise_is_not(tmp_path: Path) -> None:
    found = verdicts(tmp_path, seed=1, users=1000)
    assert set(found) == {*TRUE, *NOISE}
    assert is_right(found), {name: (j["delta"], j["p_holm"], j["verdict"]) for name, j in found.items()}
