"""ML_1MCTR: MovieLens 1M with the rows and parts of a published comparison of click models.

    1. users and items with fewer than 5 ratings of 4 or 5 are dropped, until all that are left have 5
    2. day = days in UTC+8 since the first rating; D the last one
    3. train: day ≤ 0.8 D, valid: day ≤ 0.9 D, test: the rest
    4. of valid and test, rows whose user or item training does not have are dropped

Source: ReChorus 2.0 (arXiv 2405.18058), data set ML_1MCTR. The shipped spec names the cuts of 3 as times;
this reader refuses data whose days lie otherwise, since its rows would not be those of the comparison.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from features.errors import DataError
from features.sources import movielens

VALID, TEST = 1_028_563_200, 1_037_548_800  # 2002-08-05 and 2002-11-17, 16:00 UTC: midnight in UTC+8
_DAY, _ZONE = 86_400, 8 * 3_600
_POSITIVE = pl.col("rating") >= 4


def read(root: Path) -> movielens.Tables:
    """The tables of `movielens.read`, with the ratings of the comparison.

    Raises:
        DataError: as `movielens.read`; or the ratings are not those of MovieLens 1M.
    """
    tables = movielens.read(root)
    ratings = select_rows(tables["ratings"].collect(), valid=VALID, test=TEST)
    return {**tables, "ratings": ratings.lazy()}


def select_rows(ratings: pl.DataFrame, *, valid: int, test: int) -> pl.DataFrame:
    """The rows of the comparison.

    Args:
        ratings: with user_id, item_id, rating and timestamp.
        valid, test: where these parts must begin, in seconds.

    Raises:
        DataError: they begin elsewhere.
    """
    kept = _core(ratings)
    day = (kept["timestamp"] + _ZONE) // _DAY
    first, last = int(day.min() or 0), int(day.max() or 0)  # type: ignore[arg-type]
    begins = [(first + int(share * (last - first)) + 1) * _DAY - _ZONE for share in (0.8, 0.9)]
    if begins != [valid, test]:
        raise DataError(
            f"ML_1MCTR cuts MovieLens 1M at {valid} and {test}, but these ratings ({len(kept)} rows) would "
            f"be cut at {begins[0]} and {begins[1]}; give the 1M edition as its owner packs it"
        )
    training = kept.filter(pl.col("timestamp") < valid)
    known = pl.all_horizontal(
        pl.col(key).is_in(training[key].unique().implode()) for key in ("user_id", "item_id")
    )
    return kept.filter(known)


def _core(ratings: pl.DataFrame) -> pl.DataFrame:
    """The largest part in which each user and each item has at least 5 positive rows."""
    enough = pl.all_horizontal(_POSITIVE.sum().over(key) >= 5 for key in ("user_id", "item_id"))
    while True:
        kept = ratings.filter(enough)
        if len(kept) == len(ratings):
            return kept
        ratings = kept
