"""The results of suites as plain data: tables, charts, and targets with the measured figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from features.durable import replace_file

CellValue = str | int | float | None


@dataclass(frozen=True)
class ResultTable:
    """A table; numbers stay numbers until it is shown."""

    title: str
    columns: list[str]
    rows: list[list[CellValue]]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """Lines over one axis; `name` becomes the file's."""

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]
    log: bool = True  # both axes
    levels: dict[str, float] = field(default_factory=dict)  # horizontal lines to compare with


@dataclass(frozen=True)
class Bound:
    """A figure that was measured, and the bound that it must keep."""

    what: str
    measured: float
    bound: float
    kind: Literal["at least", "at most"]

    @property
    def met(self) -> bool:
        """Whether the figure keeps the bound."""
        return self.measured >= self.bound if self.kind == "at least" else self.measured <= self.bound


@dataclass(frozen=True)
class SuiteResult:
    """All results of one suite."""

    suite: str
    title: str
    tables: list[ResultTable] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    targets: list[Bound] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """The results of a run of the command."""

    environment: dict[str, str]
    calibration: dict[str, float]
    settings: dict[str, Any]
    suites: list[SuiteResult]
    drift: dict[str, float] = field(default_factory=dict)  # suite → matmul GFLOP/s taken beside it
    options: str = ""  # of the command, beside the names of the suites

    def write_json(self, path: Path) -> None:
        """Everything, for later comparison."""
        replace_file(path, json.dumps(asdict(self), indent=1).encode())


@dataclass(frozen=True)
class Settings:
    """The settings of every suite.

    Args:
        scratch: an empty directory for synthetic data sets.
        quick: tiny sizes, to see that everything works; its figures mean nothing.
        dataset: a prepared data set, or None for synthetic ones.
        config: a run's configuration whose model, embedding and loader sections replace the peer's.
        precision: of the forward pass, fp32 or bf16.
        rows_per_request: candidates of a request in the synthetic data sets of suite train.
        requests: requests in a training batch.
        lengths: of histories in suites score and retrieval; None: their own.
        candidates: counts of a request's candidates in the same suites; None: their own.
        gflops: fp32 GFLOP/s of the calibration, for MFU and for scaling the peer's figures.
        rounds: interleaved rounds.
        budget: seconds of measured rounds of one comparison.
        say: takes a line of progress.
    """

    scratch: Path
    quick: bool = False
    dataset: Path | None = None
    config: dict[str, Any] | None = None
    precision: str = "fp32"
    rows_per_request: tuple[int, ...] = (5,)
    requests: int = 40
    lengths: tuple[int, ...] | None = None
    candidates: tuple[int, ...] | None = None
    gflops: float = 0.0
    rounds: int = 5
    budget: float = 12.0
    say: Callable[[str], None] = print
