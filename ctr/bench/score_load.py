"""A load test of the HTTP endpoint: several clients, each sending one score request after the other."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctr.serving.http import HOST


@dataclass(frozen=True)
class Load:
    """Milliseconds of every score request that was answered, and the number of those that were refused."""

    milliseconds: np.ndarray
    seconds: float
    refused: int

    def percentile(self, share: float) -> float:
        """So many percent of the responses took at most this many milliseconds."""
        return float(np.percentile(self.milliseconds, share)) if len(self.milliseconds) else float("nan")

    @property
    def per_second(self) -> float:
        """Score requests answered a second."""
        return len(self.milliseconds) / self.seconds


def load(port: int, score_requests: Sequence[dict[str, Any]], *, clients: int, seconds: float) -> Load:
    """Send the score requests in turn from several connections at once.

    Args:
        port: of the endpoint on this machine.
        score_requests: the bodies; each client begins at another one.
        clients: connections, each waiting for its response before it sends again.
        seconds: after which no score request is begun.
    """
    bodies = [json.dumps(score_request).encode() for score_request in score_requests]
    began = time.perf_counter()

    def client(number: int) -> tuple[list[float], int]:
        return _client(port, lambda i: bodies[(i + number) % len(bodies)], until=began + seconds)

    with ThreadPoolExecutor(clients) as threads:
        found = list(threads.map(client, range(clients)))
    taken = np.array([ms for times, _ in found for ms in times])
    return Load(taken, time.perf_counter() - began, sum(refused for _, refused in found))


def _client(port: int, body: Callable[[int], bytes], *, until: float) -> tuple[list[float], int]:
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    times: list[float] = []
    refused = 0
    while (start := time.perf_counter()) < until:
        connection.request("POST", "/score", body(len(times) + refused), {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        if response.status == 200:
            times.append(1e3 * (time.perf_counter() - start))
        else:
            refused += 1
    connection.close()
    return times, refused
