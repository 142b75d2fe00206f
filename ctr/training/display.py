"""What shows the progress of a training to a person."""

from __future__ import annotations

from typing import Protocol


class Display(Protocol):
    """What shows progress to a person; see pipelines.display."""

    def start(self, *, step: int, total: int) -> None: ...

    def step(self, *, step: int, rows: int, figures: dict[str, float]) -> None: ...

    def message(self, text: str) -> None: ...

    def stop(self) -> None: ...
