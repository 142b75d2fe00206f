"""A model of several tasks behind a score request: every output in the answer, those of `ctr predict`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ctr.errors import NonFiniteError
from ctr.serving.http import Endpoint, Limits
from ctr.serving.lookup import FeatureLookup
from ctr.serving.requests import split_requests
from ctr.serving.service import ScoreService
from ctr.training.calibration import Calibrators, Platt
from ctr.training.outputs import Outputs
from tests.ctr.serving.runs import LONGER, Built, cache
from tests.ctr.tasks_on_disk import write_tasks

TASKS = ("tasks.kind=esmm", "tasks.use=[click, buy]")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(write_tasks(tmp_path_factory.mktemp("tasks")), *LONGER, *TASKS)


def test_an_answer_has_every_output(built: Built) -> None:
    service = ScoreService(built.scorer(cache=cache(), micro_batch=2), FeatureLookup(built.dataset))
    endpoint = Endpoint(service, lambda: None, Limits())
    first, others = Outputs(built.state.model.learned).scores(built.expected().numpy())
    at = 0
    for request, candidates in split_requests(built.dataset, "test"):
        rows = candidates.plain["row_id"]
        body = {"request_id": int(request.name[0]), "row_ids": rows.tolist()}
        answer = json.loads(endpoint._answer(json.dumps(body).encode()))
        own = slice(at, at := at + len(rows))
        np.testing.assert_allclose(answer["scores"], first[own], rtol=1e-5)
        assert list(answer["tasks"]) == ["buy", "click_and_buy"]
        for name, scores in zip(answer["tasks"], others, strict=True):
            np.testing.assert_allclose(answer["tasks"][name], scores[own], rtol=1e-5)
    assert at == len(first)


def test_answers_are_calibrated_where_the_run_is(built: Built) -> None:
    found = {"buy": Platt(slope=1.0, offset=1.0)}
    outputs = Outputs(built.state.model.learned, Calibrators(step=1, outputs=found))
    plain, calibrated = (
        ScoreService(built.scorer(outputs=own), FeatureLookup(built.dataset)) for own in (None, outputs)
    )
    request, candidates = next(iter(split_requests(built.dataset, "test")))
    before, after = plain.respond(request, candidates), calibrated.respond(request, candidates)
    assert np.array_equal(before.score, after.score) and np.array_equal(before.logit, after.logit)
    assert (after.others["buy"] > before.others["buy"]).all()
    assert np.array_equal(after.others["click_and_buy"], before.others["click_and_buy"])


def test_a_logit_of_any_task_that_is_not_finite_is_refused(built: Built) -> None:
    service = ScoreService(built.scorer(), FeatureLookup(built.dataset))
    request, candidates = next(iter(split_requests(built.dataset, "test")))
    bias = built.state.model.head.mlp.towers[1][-1].bias
    with torch.no_grad():
        bias.fill_(float("nan"))
    try:
        with pytest.raises(NonFiniteError, match="candidate 0 of request"):
            service.respond(request, candidates)
    finally:
        with torch.no_grad():
            bias.zero_()
