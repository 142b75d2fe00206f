"""Where each row of a run's tables goes on another data set, and what of the two does not fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ctr.checkpoint.restore import mismatches
from ctr.distributed.shards import Readable, Sharded
from ctr.tokens.ngram import NgramField
from ctr.transfer.trained import Trained, check_known
from features.dataset import Dataset
from features.encode.encoding import Encoding, TableEncoding
from features.encode.row_map import map_rows

BUCKETS = ("quantile", "log")


@dataclass
class RowPlan:
    """Where rows go.

    Args:
        maps: table → int64 (rows there,), its rows here; −1 for none.
        problems: `tables.<table>` → why a table begins anew, or has no place here.
    """

    maps: dict[str, np.ndarray] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def plan_rows(
    trained: Trained,
    dataset: Dataset,
    own: Encoding | None,
    state: Mapping[str, Readable | Sharded],
    *,
    ngrams: list[NgramField],
) -> RowPlan:
    """Find the place of every row.

    Args:
        trained: what is taken over.
        dataset: the run's own.
        own: how that encodes.
        state: of the run's tables.
        ngrams: the run's.
    """
    plan, stored = RowPlan(), trained.checkpoint.tensors.within("tables/")
    same = trained.dataset_digest == dataset.manifest.digest()
    base_of = {t.name: str(f.column.table) for f in ngrams for t in f.tables}
    for name, held in state.items():
        table, _, part = name.rpartition(".")
        if part != "weight":
            continue
        problem = _shape_problem(stored.get(name), held)
        if problem is None and not same:
            known = check_known(trained.encoding, str(trained.checkpoint.path)).tables
            mine = check_known(own, str(dataset.root)).tables
            problem = _numbering_problem(table, known, mine, base_of)
        if problem is None and not same and _is_renumbered(table, known, mine):
            plan.maps[table] = map_rows(dataset, table, known[table], lambda: trained.dataset).new_rows
        elif problem is None and held.shape[0] == stored[name].shape[0]:
            plan.maps[table] = np.arange(held.shape[0])
        else:
            plan.problems[f"tables.{table}"] = problem or _counts(
                "rows", held.shape[0], stored[name].shape[0]
            )
    for table in sorted({n.rpartition(".")[0] for n in stored if n.endswith(".weight")}):
        if f"{table}.weight" not in state:
            plan.problems[f"tables.{table}"] = "expected nothing, found a table"
    return plan


def _is_renumbered(table: str, known: Mapping[str, TableEncoding], mine: Mapping[str, TableEncoding]) -> bool:
    """Whether a table is a vocabulary of which some value has another row, or is new or gone."""
    return table in mine and mine[table].encode == "vocabulary" and mine[table] != known[table]


def _shape_problem(stored: Readable | None, held: Readable | Sharded) -> str | None:
    if stored is None:
        return "expected a table, found none"
    if stored.shape[1:] != held.shape[1:]:
        return _counts("columns", held.shape[1], stored.shape[1])
    return None


def _numbering_problem(
    table: str,
    known: Mapping[str, TableEncoding],
    mine: Mapping[str, TableEncoding],
    base_of: Mapping[str, str],
) -> str | None:
    """Why rows of the same number are not the same values, and cannot be matched by value either."""
    if table in base_of:  # their rows are hashes of row numbers
        base = base_of[table]
        fits = base in known and base in mine and known[base] == mine[base]
        return None if fits else f"its rows are hashes of the rows of table {base!r}, which are others here"
    if table not in known:
        return "expected a table of the data set, found none"
    if mine[table].encode != known[table].encode:
        return f"expected encode {mine[table].encode}, found {known[table].encode}"
    if mine[table].encode in ("vocabulary", *BUCKETS) or mine[table] == known[table]:
        return None
    return f"expected {mine[table].rows} rows by the same {mine[table].encode}, found {known[table].rows}"


def _counts(what: str, here: int, there: int) -> str:
    return f"expected {here} {what}, found {there}"


def differing_inputs(own: Encoding | None, known: Encoding | None) -> dict[str, str]:
    """What stands beside the dense weights in another order, or is another column, by its name."""
    return {} if own is None or known is None else mismatches(own.inputs, known.inputs)


def fitted_otherwise(own: Encoding | None, known: Encoding | None) -> Iterator[str]:
    """Dense features and tables of buckets in both data sets whose figures were fitted to other values."""
    if own is None or known is None:
        return
    yield from sorted(k for k in own.scales.keys() & known.scales.keys() if own.scales[k] != known.scales[k])
    for name in sorted(own.tables.keys() & known.tables.keys()):
        one, other = own.tables[name], known.tables[name]
        if one.encode in BUCKETS and other.encode == one.encode and one.sha256 != other.sha256:
            yield f"table {name}"


def defined_otherwise(own: Encoding | None, known: Encoding | None) -> list[str]:
    """Features of both data sets that their specs define otherwise."""
    if own is None or known is None:
        return []
    both = own.definitions.keys() & known.definitions.keys()
    return sorted(name for name in both if own.definitions[name] != known.definitions[name])
