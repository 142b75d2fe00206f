"""DeLong's covariance equals its definition, and behaves as a comparison must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ctr.compare.delong import DeLong, delong
from features.errors import DataError
from tests.ctr.compare.tables import table_of

LEVEL = st.integers(0, 5)
ROWS = st.lists(st.tuples(st.integers(0, 1), LEVEL, LEVEL), min_size=4, max_size=30)


def slow(label: np.ndarray, base: np.ndarray, variant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition in O(P N): AUCs, and the covariances of the row and column means of the wins."""
    wins = []
    for score in (base, variant):
        pos, neg = score[label == 1][:, None], score[label == 0]
        wins.append((pos > neg) + 0.5 * (pos == neg))
    by_pos, by_neg = ([w.mean(axis=axis) for w in wins] for axis in (1, 0))
    covariance = np.cov(by_pos) / len(by_pos[0]) + np.cov(by_neg) / len(by_neg[0])
    return np.array([w.mean() for w in wins]), covariance


def figures(result: DeLong) -> list[float]:
    return [*result.auc, *result.variance, result.covariance, result.se]


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, ...]:
    label, base, variant = (np.array(column) for column in zip(*rows, strict=True))
    assume(2 <= label.sum() <= len(label) - 2)
    return label, base, variant


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_equals_the_quadratic_definition_with_ties(rows: list[tuple[int, int, int]]) -> None:
    label, base, variant = columns(rows)
    auc, covariance = slow(label, base, variant)
    se = np.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    expected = [*auc, *np.diag(covariance), covariance[0, 1], se]
    assert figures(delong(label, base, variant)) == pytest.approx(expected, abs=1e-7)


@settings(max_examples=20, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_row_order_and_monotone_maps_change_nothing(rows: list[tuple[int, int, int]], random: object) -> None:
    label, base, variant = columns(rows)
    order = list(range(len(label)))
    random.shuffle(order)  # type: ignore[attr-defined]
    moved = delong(label[order], np.exp(base[order] / 2.0) - 7.0, variant[order] ** 3.0)
    assert figures(moved) == pytest.approx(figures(delong(label, base, variant)), abs=1e-12)


def test_exchanging_the_models_turns_the_sign() -> None:
    t = table_of(0)
    there, back = delong(t.label, t.base, t.variant), delong(t.label, t.variant, t.base)
    assert there.auc == back.auc[::-1] and there.variance == back.variance[::-1]
    assert there.se == back.se > 0


def test_equal_models_have_no_error_of_the_difference() -> None:
    t = table_of(1)
    result = delong(t.label, t.base, t.base * 0.5)
    assert result.se == 0.0 and result.covariance == pytest.approx(result.variance[0], rel=1e-12)


def test_constant_scores_and_too_few_rows() -> None:
    constant = delong([0, 1, 1, 0], np.full(4, 0.3), np.full(4, 0.9))
    assert constant.auc == (0.5, 0.5) and constant.se == 0.0
    assert np.isnan(delong([0, 1, 0], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]).se)
    assert np.isnan(delong([1, 1], [0.1, 0.2], [0.3, 0.2]).auc[0])


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(DataError, match="score must be finite, got 1 other values of 2, first nan"):
        delong([0, 1], [0.1, 0.2], [0.1, np.nan])
