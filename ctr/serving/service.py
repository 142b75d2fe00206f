"""From a score request to its response: features are looked up in the data set, candidates are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ctr.errors import NonFiniteError
from ctr.loader.columns import Columns
from ctr.serving.cache import CacheStats
from ctr.serving.lookup import FeatureLookup
from ctr.serving.requests import Request
from ctr.serving.score_request import ScoreRequest
from ctr.serving.scorer import Scorer
from ctr.serving.unknown import Unknown


@dataclass(frozen=True)
class ScoreResponse:
    """The scores of the candidates of a score request.

    `logit` and `score` (C,) are those of the first task, `others` the scores (C,) of each further output by
    name (`ctr.predictions.outputs`), of a run with several tasks.

    `item_id` holds their codes, int64 (C,), −1 for unknown items; None where the score request named neither
    rows nor items.
    """

    request: Request
    logit: np.ndarray
    score: np.ndarray  # float64
    unknown: Unknown
    item_id: np.ndarray | None = None
    counters_at: int | None = None  # nanoseconds since 1970, of the export that filled counters
    others: Mapping[str, np.ndarray] = field(default_factory=dict)


class ScoreService:
    """A scorer, and the data set in which score requests are looked up."""

    def __init__(self, scorer: Scorer, lookup: FeatureLookup) -> None:
        self.scorer, self.lookup = scorer, lookup

    def __call__(self, score_request: ScoreRequest) -> ScoreResponse:
        """Score the candidates of a score request.

        Raises:
            DataError: the data set does not know what the score request names.
            NonFiniteError: a logit is NaN or infinite.
        """
        return self.respond(self.lookup.request(score_request), self.lookup.candidates(score_request))

    def respond(self, request: Request, candidates: Columns) -> ScoreResponse:
        """Score the candidates of a request.

        Raises:
            NonFiniteError: a logit is NaN or infinite.
        """
        logit = self.scorer.score(request, candidates)
        if not np.isfinite(logit).all():
            raise NonFiniteError(
                f"logits must be finite, candidate {_first_wrong(logit)} of request "
                f"{request.name[0]} got {logit[~np.isfinite(logit)][0]}; check the features that it came with"
            )
        unknown = Unknown.of(self.lookup.manifest, request, candidates)
        outputs = self.scorer.outputs
        score, others = outputs.scores(logit)
        return ScoreResponse(
            request,
            outputs.first_logit(logit),
            score,
            unknown,
            candidates.plain.get("item_id"),
            self.counters_at,
            dict(zip(outputs.names[1:], others, strict=True)),
        )

    @property
    def counters_at(self) -> int | None:
        """The moment of the counters that are filled in, nanoseconds since 1970."""
        return None if self.lookup.counters is None else self.lookup.counters.moment

    @property
    def stats(self) -> CacheStats:
        """Of the cache; zeros without one."""
        return CacheStats() if self.scorer.cache is None else self.scorer.cache.stats


def _first_wrong(logit: np.ndarray) -> int:
    """The first candidate with a logit that is not finite."""
    return int(np.isfinite(logit.reshape(len(logit), -1)).all(axis=1).argmin())
