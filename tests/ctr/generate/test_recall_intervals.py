"""Recall with intervals: users resampled, paired with the baselines, several runs together."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ctr.generate.metrics import recall, recalls
from ctr.generate.recall_intervals import Recalls, as_markdown, read_recalls, with_intervals, write_recalls
from ctr.generate.report import combine_reports, write_report
from features.errors import ConfigError, DataError

USERS = 400


def made(*, gain: float = 0.05, seed: int = 0, users: int = USERS) -> Recalls:
    """Popularity hits a tenth; the beam hits the same requests and some more."""
    random = np.random.default_rng(0)
    popular = (random.random(users) < 0.1).astype(float)
    more = np.random.default_rng(seed + 1).random(users) < gain
    found = {"popularity": popular, "beam": np.maximum(popular, more)}
    return Recalls(np.arange(users), np.arange(users), found)


def figures(run: Recalls) -> dict[str, dict[str, float]]:
    return {n: {"recall@20": float(v.mean()), "ms_per_request": 2.0} for n, v in run.recall.items()}


def test_intervals_are_those_of_a_mean() -> None:
    run = made()
    found = with_intervals([run])
    for name, values in run.recall.items():
        mean = found[name].mean
        assert mean.value == pytest.approx(values.mean()) and mean.low is not None and mean.high is not None
        assert mean.high - mean.low == pytest.approx(2 * 1.97 * values.std(ddof=1) / np.sqrt(USERS), rel=0.15)
    difference = run.recall["beam"] - run.recall["popularity"]
    paired = found["beam"].minus["popularity"]
    assert paired.value == pytest.approx(difference.mean()) and paired.low is not None and paired.low > 0
    width = 2 * 1.97 * difference.std(ddof=1) / np.sqrt(USERS)
    assert paired.high == pytest.approx(paired.low + width, rel=0.15)
    assert found["popularity"].minus == {} and list(found["beam"].minus) == ["popularity"]


def test_users_are_resampled_not_requests() -> None:
    """Ten equal requests of a user tell no more than one."""
    one = made()
    ten = Recalls(
        np.arange(10 * USERS),
        np.repeat(one.user_id, 10),
        {n: np.repeat(v, 10) for n, v in one.recall.items()},
    )
    low = with_intervals([one])["beam"].mean.low
    assert low is not None and with_intervals([ten])["beam"].mean.low == pytest.approx(low)


def test_several_runs_bring_their_noise() -> None:
    alike, unlike = [made(), made(), made()], [made(gain=g, seed=s) for s, g in enumerate((0.01, 0.05, 0.12))]
    narrow, wide = (with_intervals(runs)["beam"].minus["popularity"] for runs in (alike, unlike))
    assert narrow.low is not None and narrow.low > 0
    assert wide.low is not None and wide.low < 0 < wide.value  # Student's t of two degrees of freedom
    found = with_intervals(unlike)["beam"]
    assert found.runs == [run.recall["beam"].mean() for run in unlike]
    text = as_markdown(with_intervals(unlike), k=20)
    assert "| lowest | highest | − popularity |" in text and f"{min(found.runs):.4f}" in text


def test_few_users_have_no_interval() -> None:
    found = with_intervals([made(users=9)])["beam"].mean
    assert found.low is None and found.high is None


def test_recall_by_request_is_kept(tmp_path: Path) -> None:
    ranked, wanted = [[5, 3], [7], []], [{3}, {3, 7}, {1}]
    each = recalls(ranked, wanted, k=2)
    assert each.tolist() == [1.0, 0.5, 0.0] and recall(ranked, wanted, k=2) == 0.5
    write_recalls(tmp_path / "x.parquet", Recalls(np.arange(3), np.array([4, 4, 5]), {"beam": each}))
    found = read_recalls(tmp_path / "x.parquet")
    assert found.user_id.tolist() == [4, 4, 5] and found.recall["beam"].tolist() == each.tolist()
    with pytest.raises(DataError, match="ctr generate evaluate"):
        read_recalls(tmp_path / "gone.parquet")


def test_reports_are_combined(tmp_path: Path) -> None:
    runs = [made(gain=0.04, seed=1), made(gain=0.08, seed=2)]
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, run in zip(folders, runs, strict=True):
        write_report(folder, figures(run), [run], k=20, split="test")
    combine = partial(combine_reports, split="test", k=20)
    text = combine(folders, tmp_path / "both")
    mean = np.mean([run.recall["beam"].mean() for run in runs])
    facts = json.loads((tmp_path / "both" / "generation.json").read_text())
    assert facts["strategies"]["beam"]["recall@20"] == pytest.approx(mean)
    assert facts["judged"]["beam"]["runs"] == [run.recall["beam"].mean() for run in runs]
    assert "2 runs" in text and text in (tmp_path / "both" / "generation.md").read_text()
    assert (tmp_path / "both" / "generation.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ConfigError, match="two runs or more, got 1"):
        combine([folders[0], folders[0]], tmp_path / "c")
    with pytest.raises(DataError, match=r"recall@20 on valid, .*, got recall@20 on test"):
        combine_reports(folders, tmp_path / "c", split="valid", k=20)
    write_report(folders[0], figures(made(users=50)), [made(users=50)], k=20, split="test")
    with pytest.raises(DataError, match="the same requests"):
        combine(folders, tmp_path / "c")
    assert not (tmp_path / "c").exists()
