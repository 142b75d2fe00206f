"""Scoring request by request equals `ctr predict`, whatever the cache does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ctr.serving.append import why_not
from ctr.serving.cache import StateCache
from ctr.serving.requests import Request, split_requests
from ctr.serving.scorer import Scorer, model_digest
from features.dataset import Dataset
from features.errors import ConfigError
from tests.ctr.dataset_fixture import Sizes, write_dataset
from tests.ctr.serving.runs import HYFORMER, LONGER, TWO_STAGE, Built, cache

PLAIN = ("model.time_gaps=false",)
NGRAM = ("model.ngram.fields=[view.item]", "model.ngram.rows=50", "embedding.dim=8")
MODELS = {
    "hyformer": HYFORMER,
    "hyformer transformer": (*HYFORMER, "model.encoder.kind=transformer"),
    "hyformer swiglu": (*HYFORMER, "model.encoder.kind=swiglu"),
    "hyformer merged": ("model.merge_sequences=true", "model.default_queries=2"),
    "longer": LONGER,
    "longer auto": (*LONGER, "model.tokenizer.kind=auto", "model.tokenizer.tokens=3"),
    "longer ngrams": (*LONGER, *NGRAM),
    "two-stage": TWO_STAGE,
    "two-stage blind": (*TWO_STAGE, "model.two_stage.global_tokens=false"),
    "one_trans": ("model.kind=one_trans", "model.layers=3", "model.pyramid_step=2"),
    "hstu": ("model.kind=hstu",),
    "hstu without time gaps": ("model.kind=hstu", *PLAIN),
    "grid without time gaps": ("model.kind=grid", "model.layers=2", "model.sequence.kind=hstu", *PLAIN),
}
APPENDED = {
    "longer": (*LONGER, *PLAIN),
    "longer one layer": (*LONGER, *PLAIN, "model.layers=1"),
    "longer three layers": (*LONGER, *PLAIN, "model.layers=3", "model.longer.num_queries=20"),
    "two-stage": (*TWO_STAGE, *PLAIN),
    "one_trans": ("model.kind=one_trans", *PLAIN, "model.layers=4", "model.pyramid_step=1",
                  "model.pyramid_events=30"),
    "hyformer swiglu": (*HYFORMER, *PLAIN, "model.encoder.kind=swiglu"),
    "hyformer swiglu anew": (*HYFORMER, *PLAIN, "model.encoder.kind=swiglu", "model.encoder_input=events"),
    "hyformer merged": (*PLAIN, "model.encoder.kind=swiglu", "model.merge_sequences=true",
                        "model.default_queries=2"),
}  # fmt: skip
REFUSED = {
    "time_gaps": LONGER,
    "positions": (*LONGER, *PLAIN, "model.positions=4"),
    "merge": (*LONGER, *PLAIN, "model.longer.merge=2"),
    "queries": (*LONGER, *PLAIN, "model.longer.queries=learnable"),
    "global_tokens": (*TWO_STAGE, *PLAIN, "model.two_stage.global_tokens=false"),
    "events_see_request_globals": (*LONGER, *PLAIN, "model.longer.events_see_request_globals=true"),
    "encoder": (*HYFORMER, *PLAIN),
    "ngram": (*LONGER, *PLAIN, *NGRAM),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = Sizes(users=5, requests=10, rows=3, events=8, max_len=6)
    return write_dataset(tmp_path_factory.mktemp("serving") / "dataset", sizes, seed=1)


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many requests of few users, whose histories grow and are never cut."""
    sizes = Sizes(users=3, requests=16, rows=2, events=14, max_len=40)
    return write_dataset(tmp_path_factory.mktemp("growing") / "dataset", sizes, seed=2)


def all_logits(scorer: Scorer, built: Built, split: str = "test") -> torch.Tensor:
    asked = split_requests(built.dataset, split)
    return torch.from_numpy(np.concatenate([scorer.score(r, c) for r, c in asked]))


def all_requests(dataset: Path) -> list[Request]:
    return [request for request, _ in split_requests(Dataset(dataset), "test")]


@pytest.mark.parametrize("name", MODELS)
def test_equals_predict(name: str, dataset: Path) -> None:
    built = Built(dataset, *MODELS[name])
    want = built.expected()
    assert want.std() > 0.01
    for options in ({"micro_batch": 1, "cache": cache()}, {"micro_batch": 1000}):  # 7: see test_halves.py
        torch.testing.assert_close(all_logits(built.scorer(**options), built), want, atol=1e-5, rtol=1e-4)


def test_a_second_pass_hits_and_changes_nothing(dataset: Path) -> None:
    built = Built(dataset, *LONGER)
    scorer = built.scorer(cache=cache())
    first, asked = all_logits(scorer, built), built.dataset.split("test").info.requests
    assert scorer.cache is not None and scorer.cache.stats.hits < asked / 4
    before = scorer.cache.stats.hits
    assert torch.equal(all_logits(scorer, built), first)
    assert scorer.cache.stats.hits == before + asked


@pytest.mark.parametrize("name", APPENDED)
def test_appended_states_equal_fresh_ones(name: str, growing: Path) -> None:
    built = Built(growing, *APPENDED[name])
    scorer = built.scorer(cache=cache(), append=True)
    for split in ("train", "test"):
        got = all_logits(scorer, built, split)
        torch.testing.assert_close(got, built.expected(split), atol=1e-5, rtol=1e-4)
    assert scorer.cache is not None and scorer.cache.stats.appended > 10


def test_a_history_that_loses_events_is_computed_anew(dataset: Path) -> None:
    built = Built(dataset, *APPENDED["longer"])  # max_len 6 of about 8 events
    scorer = built.scorer(cache=cache(), append=True)
    torch.testing.assert_close(all_logits(scorer, built), built.expected(), atol=1e-5, rtol=1e-4)
    assert scorer.cache is not None and scorer.cache.stats.misses > 5  # the first of each user and more


def test_an_asking_event_that_leaves_is_computed_anew(growing: Path) -> None:
    built = Built(growing, *LONGER, *PLAIN, "model.layers=3")
    scorer = built.scorer(cache=cache(), append=True)
    torch.testing.assert_close(all_logits(scorer, built), built.expected(), atol=1e-5, rtol=1e-4)


def test_new_events_must_come_later_than_the_old_ones_of_all_domains(growing: Path) -> None:
    collator = Built(growing, *LONGER).scorer().collator
    whole = next(s for s in map(collator.spans, all_requests(growing)) if min(b - a for a, b in s) > 2)
    (view, view_end), (buy, buy_end) = whole
    nothing = ((view, view), (buy, buy))
    assert collator.appended_later(nothing, whole) and collator.appended_later(whole, whole)
    assert not collator.appended_later(((view, view_end), (buy, buy)), whole)  # the first buy is no later
    assert not collator.appended_later(whole, nothing)
    assert not collator.appended_later(((view + 1, view_end), (buy, buy_end)), whole)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_extended_is_refused_and_says_why(name: str, dataset: Path) -> None:
    built = Built(dataset, *REFUSED[name])
    assert why_not(built.state.model) is not None
    with pytest.raises(ConfigError, match=rf"cannot be extended by new events: model\.[\w.]*{name}"):
        built.scorer(append=True)


def test_the_cache_is_bounded_and_drops_the_oldest(dataset: Path) -> None:
    built = Built(dataset, *LONGER)
    whole = built.scorer(cache=cache())
    all_logits(whole, built)
    assert whole.cache is not None
    bound = whole.cache.stats.bytes // 3
    small = built.scorer(cache=StateCache(bound))
    torch.testing.assert_close(all_logits(small, built), built.expected(), atol=1e-5, rtol=1e-4)
    assert small.cache is not None
    stats = small.cache.stats
    assert stats.bytes <= bound and stats.evicted > 0 and stats.entries > 0
    none = built.scorer(cache=StateCache(0))
    all_logits(none, built)
    assert none.cache is not None and none.cache.stats.entries == 0 and none.cache.stats.too_large > 0


def test_other_weights_have_another_digest(dataset: Path) -> None:
    built, same = Built(dataset, *LONGER), Built(dataset, *LONGER)
    digest = model_digest(built.state, built.state.model)
    assert model_digest(same.state, same.state.model) == digest
    with torch.no_grad():
        next(same.state.model.parameters()).add_(1e-6)
    assert model_digest(same.state, same.state.model) != digest


def test_a_micro_batch_of_nothing_is_refused(dataset: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1 candidate, got 0"):
        Built(dataset, *LONGER).scorer(micro_batch=0)
