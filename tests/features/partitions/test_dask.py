"""The same data set on a Dask cluster, one of whose workers is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from features.errors import ConfigError
from features.partitions.workers import Resources
from features.prepare import prepare
from features.spec import parse_spec
from tests.features.partitions.test_equal import RATINGS, prepared, written
from tests.features.small_log import rating_tables, write_tables


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_whose_worker_is_killed(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="not installed: see requirements/dask.txt")
    write_tables(tmp_path / "raw", rating_tables(100))
    whole = prepared(tmp_path, RATINGS, 1)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        killed: list[int] = []

        def kill_one(told: str) -> None:
            if told.startswith("requests") and not killed:
                with distributed.Client(cluster.scheduler_address) as client:
                    killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        resources = Resources(partitions=2, dask=cluster.scheduler_address)
        out = tmp_path / "dask"
        prepare(parse_spec(RATINGS), out, base=tmp_path / "raw", resources=resources, progress=kill_one)
    assert killed
    assert written(out) == whole


def test_without_distributed_the_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    write_tables(tmp_path / "raw", rating_tables(100))
    with pytest.raises(ConfigError, match=r"requirements/dask\.txt"):
        resources = Resources(partitions=2, dask="tcp://127.0.0.1:1")
        prepare(parse_spec(RATINGS), tmp_path / "out", base=tmp_path / "raw", resources=resources)
