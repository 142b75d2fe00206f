"""A loopback HTTP endpoint: POST /score, GET /health and GET /stats (the cache's counts).

One thread scores, since torch uses the cores by itself; further score requests wait, and those beyond
`Limits.waiting` are turned away at once. The size of a body, the number of candidates and the time are
bounded too. The socket listens to this machine alone, and a web page of a foreign host cannot reach it: the
Host header and the content type are checked.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ctr.serving.score_request import ScoreRequest, parse_score_request
from ctr.serving.service import ScoreResponse, ScoreService
from features.errors import ConfigError, CtrError, DataError

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Limits:
    """Bounds on what callers may send and wait for."""

    body: int = 4 * 2**20  # bytes
    candidates: int = 10_000
    seconds: float = 10.0  # for reading, waiting and scoring together
    waiting: int = 64  # score requests that wait or are computed; more are turned away


class HttpError(Exception):
    """A request that is refused with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Endpoint:
    """Scores in a thread of its own."""

    def __init__(
        self, score: Callable[[ScoreRequest], ScoreResponse], stats: Callable[[], Any], limits: Limits
    ) -> None:
        self.compute, self.stats, self.limits = score, stats, limits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._waiting = 0

    async def score(self, request: Request) -> Response:
        """POST /score."""
        limits = self.limits
        if self._waiting >= limits.waiting:
            raise HttpError(503, f"at most {limits.waiting} score requests may wait at a time; try again")
        self._waiting += 1
        try:
            async with asyncio.timeout(limits.seconds):
                body = await _read(request, limits.body)
                score_request = parse_score_request(
                    _json(body), what="the score request", most=limits.candidates
                )
                loop = asyncio.get_running_loop()
                response = await loop.run_in_executor(self._thread, self.compute, score_request)
        except TimeoutError:
            raise HttpError(
                504, f"a score request must be answered within {limits.seconds:g} s, and was not"
            ) from None
        finally:
            self._waiting -= 1
        keys = {name: int(response.request.columns.plain[name][0]) for name in ("request_id", "time")}
        return JSONResponse({**keys, "scores": response.score.tolist(), "logits": response.logit.tolist()})

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
    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        HttpError: _http_error,
        CtrError: _ctr_error,
        ClientDisconnect: _disconnected,
    }
    return Starlette(routes=routes, middleware=[hosts], exception_handlers=handlers)


def make_server(app: Starlette, limits: Limits = Limits()) -> uvicorn.Server:
    """A server that ends gracefully on SIGTERM and Ctrl-C: what has begun is answered first."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        loop="asyncio",
        http="h11",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=round(limits.seconds) + 1,
        limit_concurrency=4 * limits.waiting,
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


async def _read(request: Request, most: int) -> bytes:
    """The body of at most `most` bytes; reading stops as soon as it is longer."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HttpError(415, "the content type must be application/json")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise HttpError(413, f"the body must have at most {most:,} bytes; send the candidates in parts")
        parts.append(part)
    return b"".join(parts)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"the body must be JSON: {error}") from None


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError)
    headers = {"Retry-After": "1"} if error.status == 503 else None
    return JSONResponse({"error": str(error)}, error.status, headers)


async def _ctr_error(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422 if isinstance(error, DataError) else 500)


async def _disconnected(_: Request, error: Exception) -> Response:
    return Response(status_code=499)
