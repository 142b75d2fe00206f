"""What 8 honest clients notice of 64 hostile ones: `python -m tests.ctr.serving.attack`; prints a table.

The server, the honest and the hostile clients are three processes. Hostile clients send large bodies of wrong
values, endless bodies, half heads, nothing at all, and small wrong requests, each again and again.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from ctr.bench.score_load import load
from ctr.serving.http import HOST, Limits, serving_in_thread
from ctr.serving.lookup import FeatureLookup
from ctr.serving.requests import split_requests
from ctr.serving.service import ScoreService
from tests.ctr.serving.runs import LONGER, Built, cache
from tests.ctr.tiny_run import tiny_dataset

SECONDS, HONEST, HOSTILE = 15.0, 8, 64
BODIES = [
    b'{"request_id":60,"columns":{"a":[' + b",".join([b"[]"] * 1_200_000) + b"]}}",
    b'{"request_id":60,"row_ids":[' + b",".join([b'"x"'] * 900_000) + b"]}",
    b'{"request_id":60,"row_ids":[' + b",".join([b"{}"] * 15_000) + b"]}",
    b'{"request_id":60}',
    b"[" * 60_000,
]


def serve() -> None:
    """The server: prints its port and the IDs of requests, ends with its standard input."""
    built = Built(tiny_dataset(Path(tempfile.mkdtemp())), *LONGER)
    service = ScoreService(built.scorer(cache=cache()), FeatureLookup(built.dataset))
    ids = [request.name[0] for request, _ in split_requests(built.dataset, "test")]
    with serving_in_thread(service, Limits()) as port:
        print(port, *ids, flush=True)
        sys.stdin.read()


def attack(port: int) -> None:
    """64 hostile clients, until the process is killed."""
    threads = [
        threading.Thread(target=_hostile, args=(port, number), daemon=True) for number in range(HOSTILE)
    ]
    for thread in threads:
        thread.start()
    time.sleep(3600)


def _hostile(port: int, number: int) -> None:
    body = BODIES[number % len(BODIES)]
    head = {"Content-Type": "application/json"}
    while True:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(HOST, port, timeout=30)
            if number % 8 == 7:  # says half of what it has to say, or nothing
                connection.connect()
                connection.sock.sendall(b"POST /score HTTP/1.1\r\nHost: 127" if number % 16 == 7 else b"")
                connection.sock.recv(1)
            while True:
                connection.request("POST", "/score", body, head)
                connection.getresponse().read()
        connection.close()


def main() -> None:
    """Quiet and under attack, in one server."""
    command = [sys.executable, "-m", "tests.ctr.serving.attack"]
    server = subprocess.Popen([*command, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port, *ids = (int(part) for part in server.stdout.readline().split())
    honest = [{"request_id": i, "row_ids": list(range(50))} for i in ids]
    memory = psutil.Process(server.pid).memory_info
    load(port, honest, clients=HONEST, seconds=3)
    print(f"{'':14} {'answered':>9} {'refused':>9} {'p50 ms':>9} {'p99 ms':>9} {'RSS MiB':>9}")
    for name in ("quiet", "under attack", "quiet again"):
        hostile = subprocess.Popen([*command, "attack", str(port)]) if name == "under attack" else None
        time.sleep(2)
        found = load(port, honest, clients=HONEST, seconds=SECONDS)
        figures = [len(found.milliseconds), found.refused, found.percentile(50), found.percentile(99)]
        print(f"{name:14} " + " ".join(f"{x:9,.1f}" for x in [*figures, memory().rss / 2**20]), flush=True)
        if hostile is not None:
            hostile.kill()
            hostile.wait()
    server.kill()
    server.wait()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    {"serve": serve, "attack": lambda: attack(int(sys.argv[2]))}.get(
        sys.argv[1] if sys.argv[1:] else "", main
    )()
