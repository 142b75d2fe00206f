"""Connections of the endpoint that do not last without a request: silent and half-open ones are dropped.

A connection has `IDLE_SECONDS` from its opening, and again from each answer, until the head of its next
request is there. Beyond `MOST` open connections the one that has been idle longest makes room, so nobody who
keeps quiet can shut the others out.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

IDLE_SECONDS = 5.0
MOST = 256


class BoundedConnection(H11Protocol):
    """A connection of HTTP/1.1 with a time limit on waiting for a request."""

    idle_seconds, most = IDLE_SECONDS, MOST
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.most:
            waiting = [
                c for c in self.connections if isinstance(c, BoundedConnection) and c._timer and c is not self
            ]
            if waiting:
                min(waiting, key=lambda connection: connection._deadline).drop()

    def data_received(self, data: bytes) -> None:
        """Take what came; a whole head ends the waiting."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more comes."""
        self._stop_waiting()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close at once, whatever was still to be sent."""
        self._stop_waiting()
        self.transport.abort()

    @property
    def _deadline(self) -> float:
        return self._timer.when() if self._timer else float("inf")

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self.idle_seconds, self.drop)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def connections(*, idle_seconds: float) -> type[Any]:
    """The protocol with another time limit."""
    return type("BoundedConnection", (BoundedConnection,), {"idle_seconds": idle_seconds})
