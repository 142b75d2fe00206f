"""The MLflow side of a run; mlflow is imported inside functions because it takes seconds."""

from __future__ import annotations

import json
import logging
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from ctr.runs.directory import RunDir
from ctr.runs.journal import Row, read_from
from ctr.tracking.address import is_sqlite, without_password
from ctr.tracking.pyfunc import saved_model
from ctr.tracking.rows import MAX_DIGEST, Point, PointIdentity, points
from ctr.tracking.store import find_experiment, open_client
from ctr.tracking.tracked_run import TrackedRun
from features.names import under

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000  # MLflow's limit of metrics per call
PARAM_BATCH = 100
PROBE_SECONDS = 3.0
UID_TAG = "ctr.uid"
MODEL_TAG = "ctr.logged_model"
_SETTINGS = {  # unless the user sets them
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds; MLflow's own defaults block for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Replica:
    """One run in MLflow: created, or found again by a tag, and brought up to the journal by `pump`."""

    def __init__(self, run: RunDir, uri: str, tracked: TrackedRun) -> None:
        self.uri = uri
        self.run_id = ""
        self.sent = 0
        self._run = run
        self._tracked = tracked
        self._client: MlflowClient | None = None
        self._offset = 0
        # What MLflow has already: the keys, asked once, and their points, asked when first needed.
        self._keys: set[str] | None = None
        self._there: dict[str, set[PointIdentity]] = {}

    def is_complete(self) -> bool:
        """Whether every row of the journal has been sent."""
        return self._offset == self._run.journal_file.stat().st_size

    def pump(self) -> None:
        """Send all rows that are not sent yet; raises whatever MLflow raises and can then be called again."""
        if self._client is None:
            self._client = self._attach()
        while True:
            rows, offset = read_from(self._run.journal_file, self._offset, limit=BATCH)
            if not rows:
                return
            try:
                self._send(self._client, rows)
            except Exception:
                self._keys, self._there = None, {}  # a part may have arrived: ask again
                raise
            self._offset = offset

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        assert self._client is not None
        for key, value in tags.items():
            self._client.set_tag(self.run_id, key, value)

    def terminate(self, status: str, end_ms: int | None = None) -> None:
        """Set the final status of the run."""
        assert self._client is not None
        self._client.set_terminated(self.run_id, status, end_time=end_ms)

    def _attach(self) -> MlflowClient:
        client = client_of(self.uri)
        who = self._tracked
        # A database has no server to keep artifacts: without a place they would go to the working directory.
        local = is_sqlite(self.uri)
        place = (self._run.path.resolve().parent / "mlartifacts").as_uri() if local else None
        experiment = find_experiment(client, who.experiment, place=place)
        found = client.search_runs([experiment], filter_string=f"tags.`{UID_TAG}` = '{who.uid}'")
        if found:
            self.run_id = found[0].info.run_id
        else:
            new = client.create_run(experiment, tags={UID_TAG: who.uid}, run_name=who.name)
            self.run_id, self._keys = new.info.run_id, set()
        return client

    def _send(self, client: MlflowClient, rows: list[Row]) -> None:
        from mlflow.entities import Metric

        new = [point for row in rows for point in points(row) if not self._is_there(client, point)]
        for start in range(0, len(new), BATCH):
            metrics = [Metric(p.key, p.value, p.time_ms, p.step) for p in new[start : start + BATCH]]
            client.log_batch(self.run_id, metrics=metrics, synchronous=True)
            self.sent += len(metrics)
        handlers = {
            "run": self._send_run,
            "session": self._send_session,
            "artifact": self._send_artifact,
            "model": self._send_model,
        }
        for row in rows:
            if row["kind"] in handlers:
                handlers[row["kind"]](client, row)

    def _is_there(self, client: MlflowClient, point: Point) -> bool:
        if self._keys is None:
            self._keys = set(client.get_run(self.run_id).data.metrics)
        if point.key not in self._keys:
            return False
        if point.key not in self._there:
            history = client.get_metric_history(self.run_id, point.key)
            self._there[point.key] = {(m.step, None if point.wall else m.value) for m in history}
        return point.identity in self._there[point.key]

    def _send_run(self, client: MlflowClient, row: Row) -> None:
        from mlflow.entities import Param

        known = client.get_run(self.run_id).data.params
        new = [Param(key, value) for key, value in row["params"].items() if key not in known]
        for start in range(0, len(new), PARAM_BATCH):
            client.log_batch(self.run_id, params=new[start : start + PARAM_BATCH], synchronous=True)
        for key, value in row["tags"].items():
            client.set_tag(self.run_id, key, value)
        if row["dataset"]:
            self._send_dataset(client, row["dataset"])

    def _send_dataset(self, client: MlflowClient, data: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        text = json.dumps(data)
        dataset = Dataset(data["name"], data["sha256"][:MAX_DIGEST], "local", text, profile=text)
        tags = [InputTag("mlflow.data.context", "training"), InputTag("sha256", data["sha256"])]
        client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, tags)])

    def _send_session(self, client: MlflowClient, row: Row) -> None:
        wall = row["wall"]
        if wall["event"] == "end":
            self.terminate(wall["status"], int(wall["time"] * 1000))
            return
        client.update_run(self.run_id, status="RUNNING")
        for key, value in {"host": wall["host"], "mlflow.source.git.commit": wall["commit"]}.items():
            if value:
                client.set_tag(self.run_id, key, value)

    def _send_artifact(self, client: MlflowClient, row: Row) -> None:
        path = self._path(row)
        if path.is_dir():
            client.log_artifacts(self.run_id, str(path), row["path"])
        elif path.is_file():
            client.log_artifact(self.run_id, str(path), str(Path(row["path"]).parent).strip(".") or None)

    def _path(self, row: Row) -> Path:
        """What a row names; a journal may come from elsewhere, and sends nothing but files of its run."""
        return under(self._run.path, *str(row["path"]).split("/"))

    def _send_model(self, client: MlflowClient, row: Row) -> None:
        """Copy a checkpoint as a model that MLflow loads, unless this one is there already."""
        checkpoint = self._path(row)
        if not checkpoint.is_dir() or client.get_run(self.run_id).data.tags.get(MODEL_TAG) == row["path"]:
            return
        options = {"dataset": row["wall"]["dataset"], "opener": row["opener"]}
        with saved_model(self._run.config, checkpoint, **options) as folder:
            client.log_artifacts(self.run_id, str(folder), "model")
        client.set_tag(self.run_id, MODEL_TAG, row["path"])


def client_of(uri: str) -> MlflowClient:
    """A client that fails soon and says little, of a server that answers or a store that is whole."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the tracker says it in one line
    _check_answers(uri)
    return open_client(uri)


def _check_answers(uri: str) -> None:
    """Raise soon if a server does not answer, before seconds go to the import; any answer will do."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urlopen(f"{without_password(uri).rstrip('/')}/health", timeout=PROBE_SECONDS).close()
    except HTTPError as error:
        error.close()
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # mlflow has its own settings for certificates
            raise
