"""Names of places in object stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import ConfigError
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
