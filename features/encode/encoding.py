"""How a data set turns values into rows of tables and numbers, short enough for a checkpoint to carry.

Two data sets may have tables of equal shapes and number other values by them, or scale a column by other
figures. So a model is to meet another data set only where these digests say what has become of its rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import polars as pl

from features.computed import Counter, Page, Strict
from features.dataset import Column, Dataset, Manifest
from features.encode.fitted import FOLDER, Fitted
from features.encode.tables import Vocabulary
from features.errors import DataError
from features.names import under
from features.read.columns import feature_columns
from features.spec import DenseFeature, Feature, SincePrevious, Spec, load_spec

_SLICE = 2**18  # texts that are hashed at a time
# Prefix of a column → part of the spec, and what one of its entries is called.
_COMPUTED = {
    "count": ("counters", "counter"),
    "match": ("matches", "match"),
    "pair": ("pairs", "pair"),
    "page": ("pages", "page"),
}


class TableEncoding(Strict):
    """An ID table: its size, and a digest of which row is which value."""

    encode: str
    rows: int
    oov_rows: int
    sha256: str

    @property
    def first(self) -> int:
        """The row of a vocabulary's first value: those before are for missing and unknown values."""
        return 1 + self.oov_rows

    @property
    def values(self) -> int:
        """How many values a vocabulary has."""
        return self.rows - self.first


class Encoding(Strict):
    """Everything by which the encoded columns of two data sets may mean different things.

    Args:
        tables: ID table → its rows.
        scales: dense feature → digest of what its columns are scaled by; `domain/field` for that of events.
        definitions: feature, `domain/field`, `domain <name>`, `counter <name>` (and `match`, `pair`, `page`),
            `the label` → digest of what the spec says.
        inputs: what a model's weights stand beside, in order: `tokens`, `domains` and `features` (their
            names), and `tokens.<group>` and `domains.<domain>` (the columns of each).
    """

    tables: dict[str, TableEncoding]
    scales: dict[str, str]
    definitions: dict[str, str]
    inputs: dict[str, list[str]]


def encoding_of(dataset: Dataset) -> Encoding | None:
    """The encoding of what a data set (or a view of it) shows; None where it was written without `fitted/`.

    Raises:
        DataError: a file of `fitted/` is missing or damaged.
    """
    if not any(name.startswith(f"{FOLDER}/") for name in dataset.manifest.files):
        return None
    manifest, fitted = dataset.manifest, Fitted(dataset)
    spec = load_spec(under(dataset.root, "spec.yaml"))
    columns = dict(_columns(manifest))
    return Encoding(
        tables={name: _table(name, manifest, fitted) for name in manifest.tables},
        scales={key: _digest(fitted.scalers(key)) for key, c in columns.items() if c.kind == "dense"},
        definitions={key: _digest(said) for key, said in _definitions(spec, manifest, columns).items()},
        inputs=_inputs(manifest),
    )


def values_digest(values: pl.Series) -> str:
    """sha256 of a vocabulary's values in their order, the same on every machine."""
    digest = hashlib.sha256(f"{values.dtype} {len(values)}".encode())
    if values.dtype == pl.Int64:
        digest.update(values.to_numpy().astype("<i8").tobytes())
        return digest.hexdigest()
    values = values.cast(pl.String)
    for low in range(0, len(values), _SLICE):
        part = values.slice(low, _SLICE)
        digest.update(part.str.len_bytes().to_numpy().astype("<i8").tobytes())
        digest.update("".join(part.to_list()).encode())
    return digest.hexdigest()


def _columns(manifest: Manifest) -> Iterator[tuple[str, Column]]:
    """Every feature by its name, and every field of events as `domain/field`."""
    yield from ((column.name, column) for column in manifest.features)
    for domain, info in manifest.domains.items():
        yield from ((f"{domain}/{column.name}", column) for column in info.side)


def _table(name: str, manifest: Manifest, fitted: Fitted) -> TableEncoding:
    info = manifest.tables[name]
    if info.encode == "vocabulary":
        table = fitted.table(name)
        assert isinstance(table, Vocabulary)
        sha256 = values_digest(table.values)
    else:
        sha256 = _digest([info.rows, fitted.numbering(name)])
    return TableEncoding(encode=info.encode, rows=info.rows, oov_rows=info.oov_rows, sha256=sha256)


def _definitions(spec: Spec, manifest: Manifest, columns: Mapping[str, Column]) -> dict[str, Any]:
    """What the spec says of features, of what these are computed by, of events, and of the label."""
    of_domain = {"where", "outcome", "from_list", "known_later"}
    domains = {
        f"domain {name}": spec.domains[name].model_dump(mode="json", include=of_domain)
        for name in manifest.domains
    }
    label = spec.impressions.label.model_dump(mode="json")
    features = {key: _definition(spec, key) for key in columns}
    return {**features, **domains, **_computed(spec, columns), "the label": label}


def _computed(spec: Spec, columns: Mapping[str, Column]) -> dict[str, Any]:
    """What the spec says of every counter, match, pair and page that a feature reads, be it by a pattern.

    A counter may read others (`against`, `by`, `value`), a page a counter or an age; these count as read too.
    """
    said: dict[str, Any] = {}
    reads = [name for column in columns.values() for name in column.fields]
    reads += [name for key in columns for name in feature_columns(_feature(spec, key))]
    while reads:
        prefix, _, rest = reads.pop().removesuffix(".missing").partition(".")
        name = rest.rpartition(".")[0]
        part, kind = _COMPUTED.get(prefix, ("", ""))
        entry = getattr(spec, part).get(name) if part else None
        if entry is None or (key := f"{kind} {name}") in said:
            continue
        said[key] = entry.model_dump(mode="json")
        if isinstance(entry, Counter):
            reads += [c for c in (*entry.by, entry.value, entry.against) if c is not None]
        if isinstance(entry, Page):
            reads.append(entry.column)
            said[key] |= {"age": spec.ages.get(entry.column.removeprefix("age."))}
    return said


def _feature(spec: Spec, key: str) -> Feature | SincePrevious:
    """The feature, or the field of events that is `domain/field`."""
    domain, _, field = key.rpartition("/")
    return spec.domains[domain].side[field] if domain else spec.features[key]


def _definition(spec: Spec, key: str) -> list[Any]:
    """What the spec says of a feature, and of the counters, matches, pairs, ages, crosses, pages it reads."""
    feature = _feature(spec, key)
    # What has a definition of its own too stays here: checkpoints of before hold these digests.
    heads = {column.rpartition(".")[0].partition(".") for column in feature_columns(feature)}
    read = [getattr(spec, _COMPUTED[h[0]][0]).get(h[2]) for h in sorted(heads) if h[0] in _COMPUTED]
    ages = [[name, column] for name, column in spec.ages.items() if _reads(feature, f"age.{name}")]
    crosses = [[name, *columns] for name, columns in spec.crosses.items() if _reads(feature, f"cross.{name}")]
    return [entry.model_dump(mode="json") for entry in (feature, *read) if entry is not None] + ages + crosses


def _reads(feature: Feature | SincePrevious, column: str) -> bool:
    """Whether a feature names a column, be it by a pattern."""
    patterns = feature.columns if isinstance(feature, DenseFeature) else ()
    return column in feature_columns(feature) or any(fnmatchcase(column, p) for p in patterns)


def _inputs(manifest: Manifest) -> dict[str, list[str]]:
    groups = {
        f"tokens.{token}": [_described(manifest.column(name)) for name in members]
        for token, members in manifest.tokens.items()
    }
    domains = {
        f"domains.{name}": [_described(column) for column in info.side]
        for name, info in manifest.domains.items()
    }
    names = {"tokens": [*manifest.tokens], "domains": [*manifest.domains]}
    return {**names, "features": [c.name for c in manifest.features], **groups, **domains}


def _described(column: Column) -> str:
    """A column in words: its name, kind, and table or values."""
    of = " ".join(column.fields or [str(column.dim)]) if column.kind == "dense" else column.table
    return f"{column.name}: {column.kind} of {of}{' with weights' if column.weighted else ''}"


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def read_encoding(data: Any, *, what: str) -> Encoding:
    """The encoding that was kept as plain data.

    Raises:
        DataError: it is none.
    """
    try:
        return Encoding.model_validate(data)
    except ValueError as error:
        text = str(error).splitlines()[0]
        raise DataError(f"{what} must say how its data set was encoded: {text}") from None
