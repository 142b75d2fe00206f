"""An MLflow store in a SQLite file: made whole by one process at a time, and named when it is broken.

MLflow creates and migrates its tables without a lock, so two first jobs can leave a store that no job can use
again. Here whoever comes first makes it under another name, holding a lock beside it, and renames it: the
store is there complete or not at all, also after a kill.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ctr.tracking.address import mlflow_uri, sqlite_file, sqlite_uri
from features.durable import fsync_path, rename
from features.errors import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient

# What alembic calls the copy of a table that it is changing; one that is left over is a migration cut short.
_LEFTOVER = "_alembic_tmp_"


class StoreError(ConfigError):
    """The store cannot be used as it is; the message says what a person must do."""


def open_client(uri: str) -> MlflowClient:
    """A client whose store exists and answers.

    Raises:
        StoreError: the store's file is broken, or is no store.
    """
    from mlflow import MlflowClient

    file = sqlite_file(uri)
    if file is None:
        return MlflowClient(tracking_uri=uri)
    with alone(file):
        if not _is_there(file):
            _make(file)
        check_whole(file)
        client = MlflowClient(tracking_uri=mlflow_uri(uri))
        client.search_experiments(max_results=1)  # an older MLflow's tables are migrated now, under the lock
    return client


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Hold the lock beside the store's file; others wait for it. The kernel frees it when its holder dies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_whole(file: Path) -> None:
    """Refuse a store that a migration left half done.

    Raises:
        StoreError: with the commands that mend it.
    """
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"{file} must be MLflow's SQLite store, got {error}; name another with tracking.uri, or move it "
            f"away and run `ctr sync RUN` for each run that reported to it: {_move(file)}"
        ) from None
    if left := sorted(name for (name,) in found if name.startswith(_LEFTOVER)):
        raise StoreError(
            f"MLflow's store {file} is broken: its table {left[0]} is left of a migration that did not end "
            "(two jobs may have made the store at one moment). Move it away, and run `ctr sync RUN` for each "
            f"run that reported to it, which sends its journal to a new store: {_move(file)}"
        )


def find_experiment(client: MlflowClient, name: str, *, place: str | None) -> str:
    """The ID of the experiment `name`, created if need be.

    Args:
        client: of an open store.
        name: of the experiment.
        place: where a new experiment keeps artifacts; None lets the server choose.

    Raises:
        StoreError: it was deleted, so that nothing can be added to it.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=place)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another job was faster
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise StoreError(
            f"the MLflow experiment {name!r} must not be deleted, but is (ID {found.experiment_id}); bring "
            f"it back with `mlflow experiments restore -x {found.experiment_id}`, or name another with "
            "tracking.experiment, then run `ctr sync RUN`"
        )
    return str(found.experiment_id)


def _is_there(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _make(file: Path) -> None:
    """Make the store under another name, and rename it when it is whole."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = file.with_name(f"{file.name}.new")
    for part in (new, new.with_name(f"{new.name}-journal")):
        part.unlink(missing_ok=True)  # of a job that died while it held the lock
    store = SqlAlchemyStore(mlflow_uri(sqlite_uri(new)), (file.resolve().parent / "mlartifacts").as_uri())
    store.engine.dispose()
    fsync_path(new)
    rename(new, file, point="mlflow")


def _move(file: Path) -> str:
    return f"mv '{file}' '{file}.broken'"
