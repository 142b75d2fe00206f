"""Names of places in an object store: `s3://bucket/key`, `gs://bucket/key`, `az://container/key`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from features.errors import ConfigError

_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}
# One slash as well: pathlib makes s3:/bucket/key of s3://bucket/key.
_URL = re.compile(rf"({'|'.join(_SCHEMES)}):/{{1,2}}([^/]*)/?(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")


@dataclass(frozen=True)
class Url:
    """A place in an object store.

    Attributes:
        scheme: s3, gs or az.
        bucket: or container.
        key: in the bucket, without slashes at its ends; empty for the bucket itself.
    """

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    @property
    def path(self) -> str:
        """Bucket and key, as the file systems of Arrow have it."""
        return f"{self.bucket}/{self.key}".rstrip("/")

    def joined(self, *parts: str) -> Url:
        """A place below this one; a part may hold slashes."""
        return Url(self.scheme, self.bucket, "/".join(p for p in (self.key, *parts) if p))

    @property
    def parent(self) -> Url:
        """The folder that this one lies in."""
        return Url(self.scheme, self.bucket, self.key.rpartition("/")[0])

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]


def remote(place: str | Path) -> Url | None:
    """The place in an object store that a path names, or None for a path of this machine.

    Raises:
        ConfigError: it names no bucket, holds credentials, or parts such as `..`.

    Example:
        >>> remote("s3://logs/day=1/"), remote(Path("s3://logs/day=1")) == remote("s3://logs/day=1")
        (Url(scheme='s3', bucket='logs', key='day=1'), True)
        >>> remote("data/logs") is None
        True
    """
    if (found := _URL.fullmatch(str(place))) is None:
        return None
    scheme, bucket, key = _SCHEMES[found[1]], found[2], found[3].strip("/")
    if "@" in bucket or ":" in bucket:
        raise ConfigError(
            f"a path of {scheme}:// must hold no credentials and no host, got some (not shown); name bucket "
            "and key, and leave credentials and the endpoint to the environment (docs/remote.md)"
        )
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"a path of {scheme}:// must begin with a bucket, got {bucket!r:.80}; name one")
    if not is_plain(key):
        raise ConfigError(
            f"{scheme}://{bucket}/…: a key must have no empty parts, no '.' and no '..', got {key!r:.80}; "
            "name the place without them"
        )
    return Url(scheme, bucket, key)


def is_plain(key: str) -> bool:
    """Whether a key can be a relative path here: no `..`, no empty parts, no control characters."""
    parts = key.split("/") if key else []
    return not any(p in ("", ".", "..") or "\\" in p or min(map(ord, p)) < 32 or len(p) > 255 for p in parts)
