"""The one door to object stores: Arrow's file systems, with credentials from where their libraries look.

Nothing here takes a key or a token: they come from the environment, the files of the vendor's tools, or the
machine's own identity, and never become part of a path, a message or a manifest.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from features.errors import ConfigError
from features.remote.faults import reaching
from features.remote.url import Url

_CONNECT, _REQUEST, _TRIES = 5.0, 60.0, 4  # seconds, seconds, attempts with growing pauses
# What decides which store is meant and who asks; another value is another connection.
_SETTINGS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"),
    "gs": ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
}
_SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
)


def filesystem(url: Url) -> fs.FileSystem:
    """The file system that a place is in.

    Raises:
        ConfigError: the environment does not say which account is meant.
        RetryableError: the store cannot be reached.
    """
    own = {name: os.environ.get(name, "") for name in _SETTINGS[url.scheme]}
    secrets = tuple(hash(os.environ.get(name, "")) for name in _SECRETS)
    bucket = url.bucket if url.scheme == "s3" and not any(list(own.values())[:4]) else ""
    with reaching(url):
        return _OPEN[url.scheme](tuple(own.items()), secrets, bucket)


@lru_cache(maxsize=16)
def _s3(settings: tuple[tuple[str, str], ...], secrets: tuple[int, ...], bucket: str) -> fs.FileSystem:
    own, options = dict(settings), dict[str, Any]()
    endpoint = own["AWS_ENDPOINT_URL_S3"] or own["AWS_ENDPOINT_URL"]
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ConfigError(
                "AWS_ENDPOINT_URL must read like https://host:port, without credentials; correct it"
            )
        options |= {"scheme": parts.scheme, "endpoint_override": parts.netloc}
    if region := own["AWS_REGION"] or own["AWS_DEFAULT_REGION"]:
        options["region"] = region
    elif bucket:
        options["region"] = fs.resolve_s3_region(bucket)
    retry = fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES)
    return fs.S3FileSystem(
        connect_timeout=_CONNECT, request_timeout=_REQUEST, retry_strategy=retry, **options
    )


@lru_cache(maxsize=16)
def _gs(settings: tuple[tuple[str, str], ...], secrets: tuple[int, ...], bucket: str) -> fs.FileSystem:
    host = dict(settings)["STORAGE_EMULATOR_HOST"]
    limit = timedelta(seconds=_REQUEST)
    if not host:
        return fs.GcsFileSystem(retry_time_limit=limit)
    parts = urlsplit(host if "//" in host else f"http://{host}")
    return fs.GcsFileSystem(
        anonymous=True, scheme=parts.scheme, endpoint_override=parts.netloc, retry_time_limit=limit
    )


@lru_cache(maxsize=16)
def _az(settings: tuple[tuple[str, str], ...], secrets: tuple[int, ...], bucket: str) -> fs.FileSystem:
    account = next((value for _, value in settings if value), "")
    if not account:
        raise ConfigError("a path of az:// needs the account's name; set AZURE_STORAGE_ACCOUNT_NAME")
    key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY") or os.environ.get("AZURE_STORAGE_KEY")
    token = os.environ.get("AZURE_STORAGE_SAS_TOKEN")
    options = {"account_key": key} if key else {"sas_token": token} if token else {}
    return fs.AzureFileSystem(account, **options)


_OPEN = {"s3": _s3, "gs": _gs, "az": _az}
