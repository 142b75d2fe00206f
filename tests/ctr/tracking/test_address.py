"""Addresses of MLflow: the database lies where the address says, or the address is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine

from ctr.tracking.address import is_sqlite, mlflow_uri, sqlite_file, sqlite_uri, tracking_uri
from features.errors import ConfigError


def test_tracking_address(tmp_path: Path) -> None:
    assert tracking_uri(tmp_path / "runs" / "a", "auto") == f"sqlite:///{tmp_path.resolve()}/runs/mlflow.db"
    assert tracking_uri(tmp_path, None) is None and tracking_uri(tmp_path, "none") is None
    assert tracking_uri(tmp_path, "http://x?a=1") == "http://x?a=1"


@pytest.mark.parametrize("name", ["plain", "a ? b", "100%", "%3F", "#1", "ä", "50% q?x=1#2"])
def test_a_file_and_its_address(name: str) -> None:
    assert sqlite_file(sqlite_uri(Path("/data") / name / "mlflow.db")) == Path("/data") / name / "mlflow.db"


@pytest.mark.parametrize("uri", ["http://localhost:5000", "sqlite:///:memory:", "sqlite://", "databricks"])
def test_addresses_without_a_file(uri: str) -> None:
    assert sqlite_file(uri) is None and tracking_uri(Path("a"), uri) == uri


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("sqlite:///{}/a b.db", "a b.db"),
        ("sqlite:///{}/a%20b.db", "a b.db"),
        ("sqlite:///{}/q%3Fx=1.db", "q?x=1.db"),
        ("sqlite:///{}/50% done.db", "50% done.db"),
        ("sqlite:///{}/a#b.db", "a#b.db"),
        ("sqlite:///{}/a.db?timeout=30&check_same_thread=false", "a.db"),
        ("sqlite+pysqlite:///{}/a.db?timeout=30", "a.db"),
    ],
)
def test_the_database_lies_where_we_look_for_it(tmp_path: Path, address: str, name: str) -> None:
    """SQLAlchemy, which MLflow opens the address with, is asked."""
    uri = tracking_uri(tmp_path / "run", address.format(tmp_path))
    assert uri is not None and sqlite_file(uri) == tmp_path / name and is_sqlite(uri)
    engine = create_engine(mlflow_uri(uri))
    with engine.connect():
        assert [p.name for p in tmp_path.iterdir()] == [name]
    engine.dispose()


def test_a_relative_file_is_relative_to_where_the_command_runs() -> None:
    uri = "sqlite:///runs/ml flow.db"
    assert tracking_uri(Path("/data/run"), uri) == uri and sqlite_file(uri) == Path("runs/ml flow.db")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:////data/q?x=1.db", "got 'x' in .*: the database would be '/data/q'; .*write %3F for it"),
        ("sqlite:///a.db?timeout=3&mode=ro", "options of SQLite, which are .*, got 'mode'"),
        ("sqlite:///a?.db", "got '.db' in"),
        ("sqlite:///a.db?uri=true", "got 'uri'"),
        ("sqlite:///file:/data/a.db?uri=true", r"must name the file .*got 'sqlite:///file:/data"),
        ("sqlite:///file%3Aa.db", "must name the file"),
        ("sqlite://runs/mlflow.db", r"as in sqlite:///runs/mlflow.db \(relative\) or sqlite:////data"),
        ("sqlite:runs/mlflow.db", "must name the file"),
    ],
)
def test_an_address_that_would_lead_elsewhere_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tracking_uri(Path("/data/run"), uri)
