"""A run's model as a version in MLflow's registry, and the alias by which a service finds it."""

from __future__ import annotations

from pathlib import Path

from ctr.errors import RetryableError
from ctr.runs.directory import RunDir
from ctr.tracking.address import without_password
from ctr.tracking.replica import UID_TAG, client_of
from ctr.tracking.tracked_run import known_run
from features.errors import CtrError


def promote(path: Path, uri: str, *, name: str, alias: str) -> str:
    """Give the alias of a registered model to the version that is this run's model; again changes nothing.

    Args:
        path: the run, whose model MLflow has (`ctr.tracking.sync` has sent it).
        uri: MLflow's resolved address.
        name: of the registered model, made where it is missing.
        alias: such as `champion`; it leaves the version that had it.

    Returns:
        The version.

    Raises:
        RetryableError: MLflow cannot be reached, or refuses.
    """
    try:
        return _promote(path, uri, name=name, alias=alias)
    except CtrError:
        raise
    except Exception as error:
        raise RetryableError(
            f"MLflow at {without_password(uri)} must take {path} as a version of {name!r}, got "
            f"{type(error).__name__}: {str(error).splitlines()[0]:.200}; mend it and run again"
        ) from error


def _promote(path: Path, uri: str, *, name: str, alias: str) -> str:
    client, known = client_of(uri), known_run(RunDir(path))
    if known is None:
        raise RetryableError(f"{path} must have been sent to MLflow; run again")
    everywhere = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(everywhere, filter_string=f"tags.`{UID_TAG}` = '{known.uid}'", max_results=1)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'")
    version = (
        versions[0]
        if versions
        else client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    )
    client.set_registered_model_alias(name, alias, version.version)
    return str(version.version)
