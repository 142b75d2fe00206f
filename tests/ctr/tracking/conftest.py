"""A run directory, and two MLflow servers in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctr.runs.directory import RunDir
from tests.ctr.fake_mlflow import FakeServer, install
from tests.ctr.tracking.sending import A, B


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    with RunDir.open(tmp_path / "runs" / "demo") as opened:
        yield opened


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeServer]:
    both = {A: FakeServer(), B: FakeServer()}
    install(monkeypatch, both)
    return both
