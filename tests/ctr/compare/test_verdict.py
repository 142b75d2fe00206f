"""Verdicts: corrected, in the metric's direction, with what could have been found and what is not covered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ctr.compare import Cell, judge
from ctr.compare.render import markdown, notes, table, to_json
from ctr.compare.verdict import holm
from features.errors import ConfigError
from tests.ctr.compare.aa import World, cells_of, false_positives, naive_rates
from tests.ctr.compare.tables import table_of

HARM = World(harm=2.0, quality=0.2)
UNEQUAL = World(users=60, quality=1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_rejects_as_its_definition_does(p: list[float]) -> None:
    corrected = holm(p)
    for alpha in (0.01, 0.05, 0.3):
        ordered = sorted(p)
        rejected = 0
        while rejected < len(p) and ordered[rejected] <= alpha / (len(p) - rejected) * (1 + 1e-12):
            rejected += 1
        assert sum(c <= alpha * (1 + 1e-12) for c in corrected) == rejected


def test_holm_never_falls() -> None:
    assert holm([0.021, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


def test_harm_is_found_in_every_metric_and_only_there() -> None:
    judged = judge(cells_of(HARM, np.random.default_rng(0)))
    found = {(j.metric, j.variant): j.verdict for j in judged if j.delta is not None}
    metrics = ("auc", "gauc", "log_loss", "ne")
    assert found == {(m, v): "hurts" if v == "v0" else "no evidence" for m in metrics for v in ("v0", "v1")}


def test_exchanged_models_help_instead() -> None:
    pair = cells_of(replace(HARM, seeds=1), np.random.default_rng(0))["v0"][0].pair
    back = replace(pair, base=pair.variant, variant=pair.base)
    there, again = (judge({"v": [Cell(pair=p)]}) for p in (pair, back))
    assert {j.verdict for j in there if j.delta} == {"hurts"}
    assert {j.verdict for j in again if j.delta} == {"helps"}
    assert [j.p for j in there] == [j.p for j in again]
    assert [j.low for j in there if j.low] == [-j.high for j in again if j.high]


def test_equal_models_are_no_evidence() -> None:
    t = replace(table_of(0), variant=table_of(0).base)
    for j in judge({"v": [Cell(pair=t.pair())]}):
        assert (j.delta, j.se, j.p, j.verdict, j.detectable) == (0.0, 0.0, 1.0, "no evidence", 0.0)


def test_constant_scores_are_judged() -> None:
    t = replace(table_of(0), variant=np.full(400, 0.35))
    judged = {j.metric: j for j in judge({"v": [Cell(pair=t.pair())]})}
    assert judged["auc"].value == 0.5 and judged["auc"].verdict == "hurts"


def test_detectable_has_the_power_it_states() -> None:
    (auc, *_) = judge({"v": [Cell(pair=table_of(0, 4000, users=3000).pair())]}, metrics=("auc",))
    assert auc.detectable is not None and auc.se is not None
    power = stats.norm.sf(stats.norm.isf(0.025) - auc.detectable / auc.se)
    assert power == pytest.approx(0.8, abs=0.002)
    pair = table_of(0).pair()
    more = judge({name: [Cell(pair=pair)] for name in "abcd"}, metrics=("auc",))
    one = judge({"a": [Cell(pair=pair)]}, metrics=("auc",))
    assert more[0].detectable > one[0].detectable and more[0].p_holm == min(1.0, 4 * one[0].p)  # type: ignore[operator]


def test_what_is_not_covered_is_said() -> None:
    cells = cells_of(World(windows=2, users=30), np.random.default_rng(0))
    one = judge({"v0": [c for c in cells["v0"] if c.seed == 0 and c.window == "0"]})
    assert one[0].caveats == ("noise of training is not covered: one seed", "other periods are not covered")
    assert [j.metric for j in one[:2]] == ["auc", "auc_delong"]
    assert "rows are taken as independent" in one[1].caveats
    every = judge(cells, windows="random")
    assert every[0].caveats == () and (every[0].seeds, every[0].windows) == (3, 2)
    assert "auc_delong" not in {j.metric for j in every}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("rmse",)}, "a metric must be among auc, gauc, query_auc, log_loss, ne, got 'rmse'"),
        ({"metrics": ("calibration",)}, "got 'calibration': neither larger nor smaller is better"),
        ({"alpha": 1.0}, r"alpha must lie in \(0, 1\), got 1.0"),
    ],
)
def test_wrong_metrics_and_levels_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judge({}, **options)
    assert judge({}) == []


def test_rendered_alike_everywhere() -> None:
    cells = cells_of(World(users=30), np.random.default_rng(0))
    judged = judge({"a|b": cells["v0"], "[red]": cells["v1"]})
    page = markdown(judged, alpha=0.05, base="base")
    assert page.count("| AUC | a\\|b |") == 1 and "query_auc" not in page
    assert table(judged, alpha=0.05).row_count == 8
    assert ", 30 user clusters, " in notes(judged)[0]
    assert any(note.startswith("Query AUC: undefined: no request ids") for note in notes(judged))
    assert '"verdict"' in to_json(judged, settings={"alpha": 0.05})


def test_false_positives_keep_the_stated_level() -> None:
    """Three seeds of unequal quality: 5 %, within three standard errors; and the test can fail."""
    bound = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 80)
    for found in false_positives(UNEQUAL, 80, noises=("own", "pooled")).values():
        assert max(found.values()) <= bound
    assert naive_rates(UNEQUAL, 30)["users alone"] > bound


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [World(taste=0.4), World(seeds=2), World(windows=4, seeds=2, users=60, drift=0.5)],
)
def test_false_positives_in_further_worlds(world: World) -> None:
    for found in false_positives(world, 200, noises=("own", "pooled")).values():
        assert max(found.values()) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 200)
