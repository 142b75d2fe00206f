"""Models on histories without times: trained, scored by request, and not asked about a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ctr.serving.lookup import FeatureLookup
from ctr.serving.requests import split_requests
from ctr.serving.score_request import ScoreRequest
from features.dataset import Dataset
from features.errors import ConfigError, DataError
from pipelines.train import train
from tests.ctr.serving.runs import HYFORMER, LONGER, TWO_STAGE, Built, cache
from tests.ctr.tiny_run import outcome_of, tiny_config
from tests.features.list_log import SPEC, prepared, random_lines

SPLIT = {"valid": 0.2, "test": 0.3}
SWIGLU = ("model.time_gaps=false", "model.encoder.kind=swiglu")
TOKENS = {"all": ["news", "topic", "fit"]}  # one token beside the model's queries


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    return prepared(folder, SPEC | {"split": SPLIT, "tokens": TOKENS}, random_lines(2, pages=80)).root


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a domain of events that have times, behind that of lists."""
    shown = {"table": "shown", "user": "user", "item": "news", "time": "at", "max_len": 5}
    shown["side"] = {"news": {"column": "news", "table": "news"}}
    spec = SPEC | {"split": SPLIT, "tokens": TOKENS, "domains": SPEC["domains"] | {"shown": shown}}
    return prepared(tmp_path_factory.mktemp("mixed"), spec, random_lines(2, pages=80)).root


def test_a_run(dataset: Path, tmp_path: Path) -> None:
    train(tiny_config(dataset, tmp_path / "run", "model.kind=longer", "model.longer.num_queries=4"))
    assert outcome_of(tmp_path / "run")["steps"]


@pytest.mark.parametrize("model", [LONGER, (*LONGER, "model.time_gaps=false"), TWO_STAGE])
def test_scores_of_requests_equal_predictions(dataset: Path, model: tuple[str, ...]) -> None:
    built = Built(dataset, *model)
    want = built.expected()
    assert want.std() > 0.01
    append = "model.time_gaps=false" in model
    scorer = built.scorer(cache=cache(), append=append)
    got = [scorer.score(request, rows) for request, rows in split_requests(built.dataset, "test")]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(got)), want, atol=1e-5, rtol=1e-4)
    assert scorer.cache is not None and (scorer.cache.stats.appended > 0) == append


@pytest.mark.parametrize("model", [HYFORMER, (*HYFORMER, *SWIGLU)])
def test_scores_beside_events_with_times(mixed: Path, model: tuple[str, ...]) -> None:
    built = Built(mixed, *model, "model.default_queries=1")
    scorer = built.scorer(cache=cache(), append=model != HYFORMER)
    got = [scorer.score(request, rows) for request, rows in split_requests(built.dataset, "test")]
    want = built.expected()
    torch.testing.assert_close(torch.from_numpy(np.concatenate(got)), want, atol=1e-5, rtol=1e-4)


def test_sequences_are_not_merged_where_some_have_no_times(mixed: Path) -> None:
    with pytest.raises(ConfigError, match=r"ordered by time, but events of domains \['read'\] have none"):
        Built(mixed, *LONGER)
    Built(mixed, *LONGER, "drop=[shown]")


def test_a_user_at_a_time_has_no_history(dataset: Path) -> None:
    lookup = FeatureLookup(Dataset(dataset))
    with pytest.raises(DataError, match=r"'read' holds lists without times.*name a request_id"):
        lookup.request(ScoreRequest(user="u1", time=1_600_000_100, row_ids=[0]))
    request = lookup.request(ScoreRequest(request_id=30, row_ids=[0]))
    assert request.columns.plain["end.read"] >= request.columns.plain["start.read"]
