"""One question, answered: the request is looked up and its candidates are scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctr.errors import NonFiniteError
from ctr.serving.cache import CacheStats
from ctr.serving.question import Question
from ctr.serving.resolve import Resolver
from ctr.serving.scorer import Scorer
from ctr.serving.source import Request
from ctr.training.scoring import probability


@dataclass(frozen=True)
class Answer:
    """The logits (C,) of a question's candidates."""

    request: Request
    logit: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """Click probabilities, float64."""
        return probability(self.logit)


class Answerer:
    """A scorer and a data set to look questions up in."""

    def __init__(self, scorer: Scorer, resolver: Resolver) -> None:
        self.scorer, self.resolver = scorer, resolver

    def __call__(self, question: Question) -> Answer:
        """Score the candidates of a question.

        Raises:
            DataError: the data set does not know what the question names.
            NonFiniteError: a logit is NaN or infinite.
        """
        request = self.resolver.request(question)
        logit = self.scorer.score(request, self.resolver.candidates(question))
        if not np.isfinite(logit).all():
            raise NonFiniteError(
                f"logits must be finite, candidate {int(np.isfinite(logit).argmin())} of request "
                f"{request.name[0]} got {logit[~np.isfinite(logit)][0]}; check the features that were given"
            )
        return Answer(request, logit)

    @property
    def stats(self) -> CacheStats:
        """Of the cache; zeros without one."""
        return CacheStats() if self.scorer.cache is None else self.scorer.cache.stats
