"""One simulated log for the tests that only read."""

from __future__ import annotations

import pytest

from features.synthetic import simulate
from tests.features.synthetic.logs import Log


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """About 17,000 impressions and 40,000 events of 700 users."""
    out = tmp_path_factory.mktemp("synthetic") / "log"
    return out, simulate(out, users=700, items=400, categories=8, requests_per_user=5, events_per_user=60)
