"""Where MLflow is: addresses of a server or of a SQLite file, checked before anything is written there."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from features.errors import ConfigError

# What SQLAlchemy takes behind the ? of a SQLite file; anything else it drops.
_OPTIONS = ("cached_statements", "check_same_thread", "detect_types", "isolation_level", "timeout")
_MEMORY = ("", ":memory:")


def tracking_uri(run: Path, uri: str | None) -> str | None:
    """Resolve the config's address.

    Args:
        run: the directory of the run.
        uri: ``auto`` is a SQLite file beside the runs, None or ``none`` no tracker; all else stays.

    Raises:
        ConfigError: an address of SQLite that would put the database elsewhere than it says.

    Example:
        >>> tracking_uri(Path("/data/runs/demo"), "auto")
        'sqlite:////data/runs/mlflow.db'
    """
    if uri is None or uri.lower() == "none":
        return None
    if uri == "auto":
        return sqlite_uri(run.resolve().parent / "mlflow.db")
    _check_sqlite(uri)
    return uri


def sqlite_uri(file: Path) -> str:
    """The address of a store's file; what means something else in an address is quoted.

    Example:
        >>> sqlite_uri(Path("/data/a?b/mlflow.db"))
        'sqlite:////data/a%3Fb/mlflow.db'
    """
    return f"sqlite:///{quote(str(file), safe='/: ')}"


def sqlite_file(uri: str) -> Path | None:
    """The file of a `sqlite:///` address; None for servers and for databases in memory.

    Example:
        >>> sqlite_file("sqlite:////data/a%3Fb/mlflow.db").as_posix()
        '/data/a?b/mlflow.db'
        >>> sqlite_file("http://localhost:5000") is None
        True
    """
    scheme, _, rest = uri.partition(":///")
    path = unquote(rest.partition("?")[0])
    return None if not is_sqlite(scheme) or path in _MEMORY or path.startswith("file:") else Path(path)


def is_sqlite(uri: str) -> bool:
    """Whether an address is of a SQLite database, with or without the name of a driver."""
    return uri.partition(":")[0].partition("+")[0].lower() == "sqlite"


def mlflow_uri(uri: str) -> str:
    """The address for MLflow: with the driver's name it makes no directory named like a *quoted* path.

    Example:
        >>> mlflow_uri("sqlite:////data/a%3Fb/mlflow.db"), mlflow_uri("http://localhost:5000")
        ('sqlite+pysqlite:////data/a%3Fb/mlflow.db', 'http://localhost:5000')
    """
    return f"sqlite+pysqlite{uri.removeprefix('sqlite')}" if uri.startswith("sqlite:") else uri


def without_password(uri: str) -> str:
    """The address without user name and password; other text comes back as it is."""
    if "://" not in uri or "@" not in uri:
        return uri
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _check_sqlite(uri: str) -> None:
    """Refuse what SQLAlchemy would read otherwise, or drop without a word."""
    if not is_sqlite(uri) or uri.partition("://")[1:] in (("://", ""), ("://", "/:memory:"), ("://", "/")):
        return
    path, _, options = uri.partition(":///")[2].partition("?")
    plain = unquote(path)
    if not plain or plain.startswith("file:"):
        raise ConfigError(
            "tracking.uri must name the file of a SQLite database, as in sqlite:///runs/mlflow.db (relative) "
            f"or sqlite:////data/mlflow.db, got {uri!r}; write its path alone behind the three slashes"
        )
    given = [name for name, _ in parse_qsl(options, keep_blank_values=True)]
    if unknown := [name for name in given if name not in _OPTIONS]:
        raise ConfigError(
            "tracking.uri: a ? begins options of SQLite, which are "
            f"{', '.join(_OPTIONS)}, got {unknown[0]!r} "
            f"in {uri!r}: the database would be {plain!r}; if the ? belongs to the path, write %3F for it"
        )
