from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from features.dataset import IdValues
from features.doctor import alone, examine
from features.doctor.sample import Sample, auc, auc_error
from tests.features.small_log import SHOP_SPEC, changed, prepared, shop_tables

SHUFFLED = "shuffled labels are told by nothing"


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auc_equals_that_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    score, label = (np.array(values) for values in zip(*pairs, strict=True))
    if label.all() or not label.any():
        assert np.isnan(auc(score, label)) and auc_error(label) == np.inf
    else:
        assert auc(score, label) == pytest.approx(roc_auc_score(label, score))


def test_the_error_is_that_of_random_scores() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(400) < 100
    spread = np.std([auc(rng.random(400), label) for _ in range(2000)])
    assert auc_error(label) == pytest.approx(spread, rel=0.05)


def test_a_sample_holds_rows_of_the_files(tmp_path: Path) -> None:
    data = prepared(tmp_path, SHOP_SPEC, shop_tables())
    split = data.split("train")
    sample = Sample.of(split, rows=20)
    assert len(sample.row) == 20 and sample.row[-1] == split.impressions.num_rows - 1
    requests = np.repeat(np.arange(split.requests.num_rows), split.requests["num_rows"].to_numpy())
    assert sample.request.tolist() == requests[sample.row].tolist()
    items = split.impressions["id.item"].to_numpy()[sample.row]
    assert sample.ids(data.manifest.column("item")).values.tolist() == items.tolist()
    assert sample.plain("user_id").tolist() == split.requests["user_id"].to_numpy()[sample.request].tolist()


def test_rates_and_scores_of_lists() -> None:
    ids = IdValues(np.array([1, 2, 2, 1]), np.array([0, 2, 3, 3, 4]))
    label, everyone = np.array([True, False, True, True]), np.ones(4, dtype=bool)
    rates = alone._rates(ids, label, everyone, rows=3)
    assert rates == pytest.approx([0.75, (2 + 20 * 0.75) / 22, (1 + 20 * 0.75) / 22])
    scores = alone._scores(ids, rates)
    assert scores == pytest.approx([rates[1:].mean(), rates[2], rates[0], rates[1]])


def test_a_check_that_lets_rows_score_themselves_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many categories of few rows each, the label rate of a row's own category tells its label."""
    tables = shop_tables(requests=2000)
    shown = tables["shown"]
    who = np.random.default_rng(3).integers(0, shown.height // 3, shown.height)
    tables["shown"] = shown.with_columns(who=who)
    columns = {"features__who": {"column": "who", "table": "who"}, "tables__who": {}}
    tokens = {"tokens__all": ["item", "device", "tags", "price", "who"]}
    data = prepared(tmp_path, changed(SHOP_SPEC, **columns, **tokens), tables)
    assert next(c for c in examine(data.root).checks if c.name == SHUFFLED).status == "pass"
    rates = alone._rates
    monkeypatch.setattr(
        alone, "_rates", lambda ids, label, of, rows: rates(ids, label, np.ones_like(of), rows)
    )
    monkeypatch.setattr(alone, "_PRIOR", 0.001)
    assert next(c for c in examine(data.root).checks if c.name == SHUFFLED).status == "fail"
