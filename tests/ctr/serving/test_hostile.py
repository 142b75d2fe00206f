"""Callers that send what cannot be answered, or nothing: refused, dropped, and the others are served."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from ctr.serving import connections as module
from ctr.serving.bodies import MOST_VALUES, parse_body
from ctr.serving.http import Limits, serving_in_thread
from ctr.serving.lookup import FeatureLookup
from ctr.serving.service import ScoreService
from features.errors import ConfigError, DataError
from features.spec import load_spec
from tests.ctr.serving.runs import LONGER, Built, cache
from tests.ctr.serving.test_http import ask, get
from tests.ctr.tiny_run import tiny_dataset

GOOD = {"request_id": 60, "row_ids": [0]}
MIB = 2**20
FIELDS = (
    "row_ids",
    "items",
    "columns",
    "features",
    "request_columns",
    "request_features",
    "user",
    "time",
    "x",
)
WRONG = ("[]", "{}", '"x"', "null", "[[]]", '{"a":[]}', "1e999", "true", "-1")

# Values that a field may have; the data set of the fixture holds no spec and no keys to look them up in.
RIGHT = {"columns": ("[]", '"x"', "null", "true", "-1"), "items": ('"x"', "-1")}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> ScoreService:
    built = Built(tiny_dataset(tmp_path_factory.mktemp("hostile")), *LONGER)
    return ScoreService(built.scorer(cache=cache()), FeatureLookup(built.dataset))


@pytest.fixture(scope="module")
def port(service: ScoreService) -> Iterator[int]:
    with serving_in_thread(service, Limits(seconds=60.0, refusals=10**6)) as port:
        yield port


def body_of(field: str, value: str, *, size: int, named: bool) -> bytes:
    """A body of about `size` bytes with the value again and again in a field, or in many columns of it."""
    if named:
        parts = (f'"c{i}":[{",".join([value] * 1000)}]' for i in range(size // (1000 * (len(value) + 1)) + 1))
        return f'{{"request_id":60,"{field}":{{{",".join(parts)}}}}}'.encode()
    return f'{{"request_id":60,"{field}":[{",".join([value] * (size // (len(value) + 1)))}]}}'.encode()


@pytest.mark.fault(38)
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("field", FIELDS)
def test_wrong_values_in_thousands_of_places(port: int, field: str, named: bool) -> None:
    for value in WRONG:
        if value not in RIGHT.get(field, ()):
            refused(port, body_of(field, value, size=MIB // 32, named=named))


def refused(port: int, body: bytes) -> None:
    status, found = ask(port, body)
    assert status in (400, 422) and len(json.dumps(found)) < 64 * 2**10, body[:100]


@pytest.mark.slow
@pytest.mark.fault(38)
def test_wrong_values_in_a_million_places(port: int) -> None:
    """Each field in both ways, and each value in one or more of them."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, (field, named) in enumerate(product(FIELDS, (False, True))):
        wrong = [value for value in WRONG if value not in RIGHT.get(field, ())]
        refused(port, body_of(field, wrong[number % len(wrong)], size=37 * MIB // 10, named=named))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 2**10  # KiB; it was GBs
    assert get(port, "/health")["status"] == "ok"


@pytest.mark.fault(38)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"request_id": 1, "request_id": 2}', "'request_id' stands twice"),
        (b'{"request_id": 1, "columns": {"a": [1], "b": [1], "a": [2]}}', "'a' stands twice"),
        (b"[" + b"1," * MOST_VALUES + b"1]", f"at most {MOST_VALUES:,} values"),
        (
            json.dumps({"columns": {f"c{i}": [1] for i in range(1001)}}).encode(),
            "columns must hold at most 1,000 names",
        ),
        (json.dumps({"columns": {"a": [1] * 9}}).encode(), "columns.a must have at most 8 candidates, got 9"),
        (
            json.dumps({"columns": {"a": [[1] * 10_001]}}).encode(),
            "a value of columns.a must have at most 10,000",
        ),
        (
            json.dumps({"request_features": {"a": [1] * 10_001}}).encode(),
            "request_features.a must have at most",
        ),
        (b"{" * 100_000, "must be JSON"),
        (b"1" * 5_000, "must be JSON"),
        (b"\xff\xfe", "must be JSON"),
        (b"3", "valid dict"),
        (b"", "must be JSON"),
    ],
)
def test_counts_are_checked_before_values(body: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        parse_body(body, most=8)


def test_an_honest_request_of_many_candidates_is_parsed() -> None:
    body = {"request_id": 1, "items": [f"i{i}" for i in range(10_000)], "columns": {"p": [1.5] * 10_000}}
    assert parse_body(json.dumps(body).encode(), most=10_000).candidates == 10_000


def test_a_million_faults_of_a_spec_are_summed_up(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("features:\n" + "".join(f"  f{i}: {{kind: id, colour: blue}}\n" for i in range(900)))
    with pytest.raises(ConfigError, match=r"… and [\d,]+ more$") as raised:
        load_spec(path)
    assert len(str(raised.value)) < 10_000


def open_silent(port: int, begin: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(begin)
    return connection


def is_dropped(connection: socket.socket) -> bool:
    """Read to the end of the connection; if the server kept it open, the socket would time out."""
    with connection, suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    return True


HALF_HEAD = b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: applic"
HALF_BODY = HALF_HEAD + b"ation/json\r\nContent-Length: 50\r\n\r\n{"


@pytest.mark.fault(39)
@pytest.mark.parametrize("begin", [b"", b"P", HALF_HEAD, HALF_BODY])
def test_silent_and_half_open_connections_are_dropped(service: ScoreService, begin: bytes) -> None:
    with serving_in_thread(service, Limits(idle=0.3, reading=0.3)) as port:
        silent = [open_silent(port, begin) for _ in range(8)]
        assert all(is_dropped(connection) for connection in silent)
        assert ask(port, GOOD)[0] == 200


@pytest.mark.fault(39)
def test_one_that_sends_its_head_letter_by_letter_is_dropped(service: ScoreService) -> None:
    with (
        serving_in_thread(service, Limits(idle=0.5)) as port,
        open_silent(port, b"") as slow,
        pytest.raises((BrokenPipeError, ConnectionResetError)),
    ):
        for letter in HALF_HEAD * 50:
            slow.sendall(bytes([letter]))
            time.sleep(0.01)


def test_a_connection_that_keeps_quiet_after_its_answer_is_dropped(service: ScoreService) -> None:
    body = json.dumps(GOOD).encode()
    head = HALF_BODY.partition(b"Content-Length")[0] + b"Content-Length: %d\r\n\r\n" % len(body)
    with serving_in_thread(service, Limits(idle=0.3)) as port:
        first = open_silent(port, head + body)
        time.sleep(0.1)
        first.sendall(head + body)  # within the time: answered
        assert is_dropped(first)


@pytest.mark.fault(39)
def test_silent_connections_shut_nobody_out(service: ScoreService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.BoundedConnection, "most", 16)
    with serving_in_thread(service, Limits(idle=60.0)) as port:
        silent = [open_silent(port, HALF_HEAD) for _ in range(64)]
        for _ in range(3):
            assert ask(port, GOOD)[0] == 200
        assert is_dropped(silent[0])  # the oldest made room
        for connection in silent:
            connection.close()


def test_what_is_too_large_is_not_read(service: ScoreService) -> None:
    head = HALF_BODY.replace(b"Content-Length: 50", b"Content-Length: 900000000").removesuffix(b"{")
    with serving_in_thread(service, Limits()) as port:
        connection = open_silent(port, head)
        answer = connection.recv(65536)
        assert b" 413 " in answer.partition(b"\r\n")[0] and b"connection: close" in answer.lower()
        assert is_dropped(connection)
        chunked = head.replace(b"Content-Length: 900000000", b"Transfer-Encoding: chunked")
        with (
            open_silent(port, chunked) as connection,
            pytest.raises((BrokenPipeError, ConnectionResetError)),
        ):
            for _ in range(1_000):
                connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")


def test_many_refusals_wait_before_they_are_sent(service: ScoreService) -> None:
    with serving_in_thread(service, Limits(refusals=3)) as port:
        began = time.monotonic()
        for _ in range(5):
            assert ask(port, {})[0] == 422
        assert time.monotonic() - began >= 1.0  # a wait that must be there; never a bound from above
        assert ask(port, GOOD)[0] == 200


def test_few_large_bodies_wait_at_a_time(service: ScoreService) -> None:
    head = HALF_BODY.replace(b"Content-Length: 50", b"Content-Length: 2000000")
    with serving_in_thread(service, Limits(waiting_large=2, reading=30.0)) as port:
        held = [open_silent(port, head) for _ in range(2)]
        while get(port, "/health")["waiting"] < 2:
            time.sleep(0.01)
        status, found = ask(port, b" " * 100_000)
        assert status == 503 and "at most 2 bodies" in found["error"]
        assert ask(port, GOOD)[0] == 200  # small ones pass by
        for connection in held:
            connection.close()
