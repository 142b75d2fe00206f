"""Names of places in object stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import ConfigError, RetryableError
from features.remote.faults import told, without_secrets
from features.remote.filesystem import filesystem
from features.remote.url import Url, remote


@pytest.mark.parametrize("text", ["data/logs", "/data/s3/x", "../x", "s3", "C:/x", "file:///x", "./s3:/x"])
def test_local_paths_stay_local(text: str) -> None:
    assert remote(text) is None


@pytest.mark.parametrize(
    ("text", "scheme"), [("s3://logs/a/b", "s3"), ("gcs://logs/a/b/", "gs"), ("abfs://logs/a/b", "az")]
)
def test_a_path_is_the_same_as_its_text(text: str, scheme: str) -> None:
    assert remote(text) == remote(Path(text)) == Url(scheme, "logs", "a/b")


@pytest.mark.parametrize("text", ["s3://key:secret@logs/a", "s3://logs:9000/a", "gs://token@logs/a"])
def test_credentials_are_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="must hold no credentials") as caught:
        remote(text)
    assert not any(word in str(caught.value) for word in ("key:", "secret@", "token", "9000"))


@pytest.mark.parametrize(
    "text", ["s3://", "s3:///a", "s3://-/a", "s3://logs/../a", "s3://logs/a//b", "s3://l"]
)
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        remote(text)


def test_places_below() -> None:
    place = Url("s3", "logs", "").joined("a", "b/c")
    assert (str(place), place.path, place.name, str(place.parent)) == (
        "s3://logs/a/b/c",
        "logs/a/b/c",
        "c",
        "s3://logs/a/b",
    )


def test_an_account_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="set AZURE_STORAGE_ACCOUNT_NAME"):
        filesystem(Url("az", "logs", "a"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://key:secret@127.0.0.1:9000")
    with pytest.raises(ConfigError, match="without credentials") as caught:
        filesystem(Url("s3", "logs", "a"))
    assert "secret" not in str(caught.value)


def test_messages_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2024&sig=abcdef")
    text = without_secrets("cannot read https://x.blob/a?sv=2024&sig=abcdef and sig=other&b=1")
    assert text == "cannot read https://x.blob/a?<AZURE_STORAGE_SAS_TOKEN> and sig=…&b=1"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (
            "The specified container does not exist. ContainerNotFound",
            ConfigError,
        ),
        ("google::cloud::Status(PERMISSION_DENIED: no)", ConfigError),
        ("AuthorizationFailure: This request is not authorized", ConfigError),
        ("Could not resolve host: x", RetryableError),
        ("AWS Error SLOW_DOWN during PutObject", RetryableError),
    ],
)
def test_errors_of_other_stores(message: str, kind: type[Exception]) -> None:
    """As their libraries write them; there is no server of theirs here."""
    assert type(told(OSError(message), Url("gs", "logs", "a"))) is kind
