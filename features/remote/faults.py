"""What goes wrong between here and an object store, as a sentence with path and remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from features.errors import ConfigError, DataError, RetryableError, first_line
from features.remote.url import Url

_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL")
_DENIED = re.compile(
    r"ACCESS_DENIED|FORBIDDEN|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_SIGNATURE|EXPIRED_TOKEN|"
    r"INVALID_CLIENT_TOKEN|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION|NOT_AUTHORIZED|Unauthenticated|"
    r"PermissionDenied|Permission.denied|AuthenticationFailed|AuthorizationFailure|AuthorizationPermission|"
    r"HTTP status 40[13]|\b40[13] ",
    re.IGNORECASE,
)
_NO_BUCKET = re.compile(
    r"NO_SUCH_BUCKET|bucket does not exist|container does not exist|ContainerNotFound|Bucket '.*' not found",
    re.IGNORECASE,
)
_MISSING = re.compile(
    r"NO_SUCH_KEY|RESOURCE_NOT_FOUND|path does not exist|BlobNotFound|\bNotFound", re.IGNORECASE
)


@contextmanager
def reaching(url: Url) -> Iterator[None]:
    """Tell of what a library raises within the block.

    Raises:
        ConfigError: the bucket is not there, or these credentials may not do it.
        DataError: the object is not there.
        RetryableError: whatever passes by itself: the network, the store, its limits.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise told(error, url) from None


def told(error: Exception, url: Url) -> ConfigError | DataError | RetryableError:
    """The error of a library, told."""
    text = without_secrets(first_line(error))
    if _NO_BUCKET.search(str(error)):
        return ConfigError(
            f"{url}: the bucket {url.bucket!r} must exist, but the store has none of that name; "
            "correct the path"
        )
    if _DENIED.search(str(error)):
        return ConfigError(
            f"{url}: the store refuses it to these credentials ({text}); check which ones the environment or "
            "the vendor's configuration files give (docs/remote.md), and what they may do"
        )
    if isinstance(error, FileNotFoundError) or _MISSING.search(str(error)):
        return DataError(f"{url} must exist, but is not there; correct the path")
    return RetryableError(
        f"{url} cannot be reached ({text}); check network and endpoint, then run the same command again"
    )


def without_secrets(text: str) -> str:
    """The text without the values of variables that name a secret."""
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET.search(name.upper()):
            text = text.replace(value, f"<{name}>")
    return re.sub(r"(sig|X-Amz-Signature|X-Amz-Credential)=[^&\s]+", r"\1=…", text)
