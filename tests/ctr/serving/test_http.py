"""The endpoint over a real socket: scores, refusals, limits, time-outs, a graceful end."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ctr.bench.score_load import load
from ctr.serving.http import Limits, listen, serving_in_thread
from ctr.serving.lookup import FeatureLookup
from ctr.serving.requests import split_requests
from ctr.serving.score_request import ScoreRequest
from ctr.serving.service import ScoreResponse, ScoreService
from features.errors import ConfigError
from tests.ctr.serving.runs import LONGER, Built, cache
from tests.ctr.tiny_run import tiny_dataset

LIMITS = Limits(body=5_000, candidates=50, seconds=60.0, waiting=4)


class Slow(ScoreService):
    """Answers only when it may."""

    def __init__(self, inner: ScoreService) -> None:
        super().__init__(inner.scorer, inner.lookup)
        self.may, self.begun = threading.Event(), threading.Event()

    def __call__(self, score_request: ScoreRequest) -> ScoreResponse:
        self.begun.set()
        assert self.may.wait(60)
        return super().__call__(score_request)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tiny_dataset(tmp_path_factory.mktemp("http")), *LONGER)


@pytest.fixture(scope="module")
def service(built: Built) -> ScoreService:
    return ScoreService(built.scorer(cache=cache()), FeatureLookup(built.dataset))


@pytest.fixture(scope="module")
def port(service: ScoreService) -> Iterator[int]:
    with serving_in_thread(service, LIMITS) as port:
        yield port


def ask(port: int, body: Any, path: str = "/score", **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a POST."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, sent, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    is_json = answer.headers.get("content-type") == "application/json"
    return answer.status, json.loads(text) if is_json else {"text": text.decode()}


def get(port: int, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    found: dict[str, Any] = json.loads(answer.read())
    connection.close()
    return found


def test_answers_equal_predict(port: int, built: Built) -> None:
    want, start = built.expected().numpy(), 0
    for request, rows in list(split_requests(built.dataset, "test"))[:8]:
        row_ids = rows.plain["row_id"].tolist()
        status, found = ask(port, {"request_id": request.name[0], "row_ids": row_ids})
        assert status == 200 and found["request_id"] == request.name[0]
        expected = want[start : start + len(row_ids)]
        np.testing.assert_allclose(found["logits"], expected, atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(found["scores"], 1 / (1 + np.exp(-expected)), atol=1e-5)
        unknown = {str(i): ["item"] for i in np.flatnonzero(rows.ids["item"].values == 1).tolist()}
        named = {i: [n for n in names if n == "item"] for i, names in found["unknown"]["candidates"].items()}
        assert {i: names for i, names in named.items() if names} == unknown  # row 1: the unknown one
        start += len(row_ids)
    stats = get(port, "/stats")
    assert stats["misses"] > 0 and stats["bytes"] <= stats["max_bytes"]
    assert get(port, "/health")["status"] == "ok"


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"{", {}, 400, "must be JSON"),
        (b"[" * 4000, {}, 400, "must be JSON"),
        ({"request_id": 60, "row_ids": [1] * 51}, {}, 422, "at most 50 candidates, got 51"),
        ({"request_id": 10**6, "row_ids": [1]}, {}, 422, "request_id must name"),
        ({"request_id": 60, "row_ids": [1], "x": 1}, {}, 422, "x: Extra inputs"),
        (b" " * 5_001, {}, 413, "at most 5,000 bytes"),
        ({}, {"Content-Type": "text/plain"}, 415, "application/json"),
    ],
)
def test_what_is_wrong_is_refused(
    port: int, body: Any, headers: dict[str, str], status: int, says: str
) -> None:
    found, answer = ask(port, body, **headers)
    assert found == status and says in answer["error"]


def test_foreign_hosts_and_paths_are_refused(port: int) -> None:
    assert ask(port, {}, Host="example.org")[0] == 400
    assert ask(port, {}, path="/other")[0] == 404


def test_too_many_and_too_slow_are_turned_away_and_the_end_is_graceful(service: ScoreService) -> None:
    slow, score_request = Slow(service), {"request_id": 60, "row_ids": [0]}
    answers: list[tuple[int, dict[str, Any]]] = []
    with serving_in_thread(slow, Limits(seconds=60, waiting=1)) as port:
        first = threading.Thread(target=lambda: answers.append(ask(port, score_request)))
        first.start()
        assert slow.begun.wait(60)
        status, refused = ask(port, score_request)
        assert status == 503 and "at most 1 score requests" in refused["error"]
        threading.Timer(0.2, slow.may.set).start()
    first.join()  # the server has ended, and answered what it had begun
    assert answers[0][0] == 200
    slow = Slow(service)
    with serving_in_thread(slow, Limits(seconds=0.2)) as port:
        status, refused = ask(port, score_request)
        slow.may.set()
    assert status == 504 and "within 0.2 s" in refused["error"]


def test_a_port_in_use_is_named() -> None:
    with listen(0) as held, pytest.raises(ConfigError, match="--port must be a free port"):
        listen(held.getsockname()[1])


def test_the_load_test_counts_answers_and_refusals(port: int) -> None:
    good, bad = {"request_id": 60, "row_ids": [0, 1]}, {"request_id": 60}
    found = load(port, [good, bad], clients=2, seconds=0.5)
    assert len(found.milliseconds) > 0 and found.refused > 0
    assert 0 < found.percentile(50) <= found.percentile(99) and found.per_second > 0
