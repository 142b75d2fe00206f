"""What all tests share: small, reproducible runs, and no GPU test without a GPU."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.object_store import ENVIRONMENT, Bucket, s3_server

# Two workers share the cores; more threads only get in each other's way. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "2")
# Without a GPU its kernels are interpreted. Triton reads this when it is imported, by whatever comes first.
if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ.setdefault("TRITON_INTERPRET", "1")

# No deadline: a busy machine is no fault. Derandomized: the same examples in every run.
settings.register_profile("ctr", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("ctr")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def chaos_seed() -> int:
    """Where the draw of kills and flips begins: CHAOS_SEED, or 0; `make chaos` prints it."""
    return int(os.environ.get("CHAOS_SEED", "0"))


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Keeps what a test has counted for the lines of `make chaos`, as in `counted(flips=40)`."""

    def keep(**figures: int) -> None:
        for name, count in figures.items():
            record_property(f"figure {name}", count)

    return keep


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of an S3-compatible server on this machine, started once for all tests."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed: see requirements/remote.txt")
    with s3_server() as address:
        yield address


_buckets = itertools.count()


@pytest.fixture
def bucket(object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket, which this process finds through its environment, and an empty cache."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": object_store}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CTR_CACHE", str(tmp_path / "cache"))
    return Bucket(object_store, f"logs-{next(_buckets)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        rows = [row for mark in item.iter_markers("fault") for row in mark.args]
        item.user_properties += [("fault", row) for row in rows]
        if rows and "chaos_seed" in getattr(item, "fixturenames", ()):
            item.user_properties.append(("seed", int(os.environ.get("CHAOS_SEED", "0"))))
    _skip_without_gpu(items)


def _skip_without_gpu(items: list[pytest.Item]) -> None:
    wanted = [item for item in items if item.get_closest_marker("gpu")]
    if not wanted:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanted:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
