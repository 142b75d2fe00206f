"""A loopback HTTP endpoint: POST /score, GET /health and GET /stats (the cache's counts).

One thread reads bodies and scores, since torch uses the cores by itself; the event loop only moves bytes, so
/health answers whatever is computed. Everything a caller sends is bounded before it is read: connections and
their silence (`ctr.serving.connections`), the size of a body, the bodies that wait, the values in one
(`ctr.serving.bodies`), and the time. Large bodies are read one at a time. When many requests are refused,
refusals wait a moment before they are sent: callers that go on with what cannot be answered then take little
from the others.

The socket listens to this machine alone, and a web page of a foreign host cannot reach it: the Host header
and the content type are checked.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ctr.serving.bodies import BadBody, parse_body
from ctr.serving.connections import connections
from ctr.serving.score_request import ScoreRequest
from ctr.serving.service import ScoreResponse, ScoreService
from features.errors import ConfigError, CtrError, DataError
from features.names import printable

HOST = "127.0.0.1"
MOST_MESSAGE = 4_000  # characters of a refusal


@dataclass(frozen=True)
class Limits:
    """Bounds on what callers may send and wait for."""

    body: int = 4 * 2**20  # bytes
    candidates: int = 10_000
    seconds: float = 10.0  # for reading, waiting and scoring together
    reading: float = 5.0  # seconds for the whole body
    idle: float = 5.0  # seconds until a connection has sent the head of a request
    waiting: int = 64  # score requests that wait or are computed; more are turned away
    large: int = 64 * 2**10  # bytes from which a body is large
    waiting_large: int = 4  # of them with a large body
    refusals: int = 20  # in a second; of more, each waits a second before it is sent


class HttpError(Exception):
    """A request that is refused with this status and message; `close` where its body was not read."""

    def __init__(self, status: int, message: str, *, close: bool = False) -> None:
        super().__init__(message)
        self.status, self.close = status, close


class Endpoint:
    """Scores in a thread of its own."""

    def __init__(
        self, score: Callable[[ScoreRequest], ScoreResponse], stats: Callable[[], Any], limits: Limits
    ) -> None:
        self.compute, self.stats, self.limits = score, stats, limits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._waiting, self._waiting_large = 0, 0
        self._one_large = asyncio.Lock()

    async def score(self, request: Request) -> Response:
        """POST /score."""
        limits, large = self.limits, _check_head(request, self.limits)
        if self._waiting >= limits.waiting:
            raise HttpError(
                503, f"at most {limits.waiting} score requests may wait at a time; try again", close=True
            )
        if large and self._waiting_large >= limits.waiting_large:
            raise HttpError(
                503,
                f"at most {limits.waiting_large} bodies of {limits.large:,} bytes may wait; try again",
                close=True,
            )
        self._waiting, self._waiting_large = self._waiting + 1, self._waiting_large + large
        try:
            async with asyncio.timeout(limits.seconds), self._one_large if large else nullcontext():
                body = await _read(request, limits)
                answer = asyncio.get_running_loop().run_in_executor(self._thread, self._answer, body)
                return Response(await answer, media_type="application/json")
        except TimeoutError:
            raise HttpError(
                504, f"a score request must be answered within {limits.seconds:g} s, and was not", close=True
            ) from None
        finally:
            self._waiting, self._waiting_large = self._waiting - 1, self._waiting_large - large

    def _answer(self, body: bytes) -> bytes:
        """From a body to the body of its answer."""
        response = self.compute(parse_body(body, most=self.limits.candidates))
        keys = {name: int(response.request.columns.plain[name][0]) for name in ("request_id", "time")}
        scored: dict[str, Any] = {"scores": response.score.tolist(), "logits": response.logit.tolist()}
        if response.others:
            scored["tasks"] = {name: scores.tolist() for name, scores in response.others.items()}
        answer = {**keys, **scored, "unknown": response.unknown.plain()}
        if response.counters_at is not None:
            answer["counters_at"] = response.counters_at / 1e9
        return json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()

    async def health(self, _: Request) -> Response:
        """GET /health."""
        return JSONResponse({"status": "ok", "waiting": self._waiting})

    async def statistics(self, _: Request) -> Response:
        """GET /stats."""
        stats = self.stats()
        return JSONResponse({**asdict(stats), "hit_rate": stats.hit_rate})


def make_app(service: ScoreService, limits: Limits = Limits()) -> Starlette:
    """The application, to be run by `serve`."""
    endpoint = Endpoint(service, lambda: service.stats, limits)
    routes = [
        Route("/score", endpoint.score, methods=["POST"]),
        Route("/health", endpoint.health, methods=["GET"]),
        Route("/stats", endpoint.statistics, methods=["GET"]),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    refusals = Refusals(limits.refusals)
    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        HttpError: refusals.of_http,
        CtrError: refusals.of_ctr,
        ClientDisconnect: _disconnected,
    }
    return Starlette(routes=routes, middleware=[hosts], exception_handlers=handlers)


def make_server(app: Starlette, limits: Limits = Limits()) -> uvicorn.Server:
    """A server that ends gracefully on SIGTERM and Ctrl-C: what has begun is answered first."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        loop="asyncio",
        http=connections(idle_seconds=limits.idle),
        ws="none",
        log_config=None,  # its lines go where those of the command go
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=round(limits.seconds) + 1,
    )
    return uvicorn.Server(config)


def listen(port: int) -> socket.socket:
    """A socket of this machine alone; port 0 takes a free one.

    Raises:
        ConfigError: the port is taken or not allowed.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # from now on callers wait instead of being refused
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"--port must be a free port of this machine, got {port}: {error}; name another"
        ) from None
    return listener


@contextmanager
def serving_in_thread(service: ScoreService, limits: Limits = Limits()) -> Iterator[int]:
    """Serve in a thread beside the caller and yield the free port that was taken; for load tests."""
    with listen(0) as listener:
        server = make_server(make_app(service, limits), limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


class Refusals:
    """Sends refusals at once while they are few; beyond `most` in a second each waits a second.

    A body that was not read ends its connection, so that nothing more of it is.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._times: deque[float] = deque(maxlen=most)

    async def of_http(self, _: Request, error: Exception) -> Response:
        """The response to a request that is no score request, or comes at the wrong time."""
        assert isinstance(error, HttpError)
        headers = {"Retry-After": "1"} if error.status == 503 else {}
        return await self._refuse(
            error, error.status, {**headers, "Connection": "close"} if error.close else headers
        )

    async def of_ctr(self, _: Request, error: Exception) -> Response:
        """The response to a score request that cannot be answered."""
        status = 400 if isinstance(error, BadBody) else 422 if isinstance(error, DataError) else 500
        return await self._refuse(error, status, {})

    async def _refuse(self, error: Exception, status: int, headers: dict[str, str]) -> Response:
        now = time.monotonic()
        many = len(self._times) == self.most and now - self._times[0] < 1
        self._times.append(now)
        if many:
            await asyncio.sleep(1)
        return JSONResponse({"error": printable(str(error)[:MOST_MESSAGE])}, status, headers)


def _check_head(request: Request, limits: Limits) -> bool:
    """Refuse by the head what need not be read; returns whether the body is large, or may be."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HttpError(415, "the content type must be application/json", close=True)
    size = request.headers.get("content-length")
    if size is None:
        return True
    if int(size) > limits.body:
        raise _too_large(limits)
    return int(size) >= limits.large


async def _read(request: Request, limits: Limits) -> bytes:
    """The body; reading stops as soon as it is too long or takes too long."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.reading):
            async for part in request.stream():
                size += len(part)
                if size > limits.body:
                    raise _too_large(limits)
                parts.append(part)
    except TimeoutError:
        raise HttpError(
            408, f"the body must be here within {limits.reading:g} s, {size:,} bytes were", close=True
        ) from None
    return b"".join(parts)


def _too_large(limits: Limits) -> HttpError:
    return HttpError(
        413, f"the body must have at most {limits.body:,} bytes; send the candidates in parts", close=True
    )


async def _disconnected(_: Request, error: Exception) -> Response:
    return Response(status_code=499)
