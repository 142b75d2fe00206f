"""What a batch holds and what unique IDs save, for the log."""

from __future__ import annotations

from collections.abc import Sequence

from ctr.batch import Batch, IdColumn
from ctr.loader.collate import CANDIDATE, EVENT, REQUEST, use_tables
from ctr.tokens.ngram import NgramField
from features.dataset import Manifest

_ID_BYTES, _FLOAT_BYTES = 8, 4


def batch_stats(
    batch: Batch, manifest: Manifest, *, dim: int, ngrams: Sequence[NgramField] = ()
) -> dict[str, float]:
    """Count a batch.

    Args:
        batch: the batch.
        manifest: of its data set.
        dim: width of the embedding tables.
        ngrams: the n-grams that the batch was made with; counted as if they were `dim` wide.

    Returns:
        ``rows``, ``requests``, ``tokens`` (events of all domains), ``unique_ratio`` and
        ``unique_ratio.<table>`` (unique IDs over uses, 1 where nothing is used), and the bytes of IDs and
        embedding rows that travel: ``bytes_plain`` with an ID and a row for every use, ``bytes_unique`` with
        both once and a position per use.
    """
    uses = _count_uses(batch, use_tables(manifest, ngrams))
    unique = {table: len(ids) for table, ids in batch.unique_ids.items()}
    total, distinct = sum(uses.values()), sum(unique.values())
    entry = _ID_BYTES + _FLOAT_BYTES * dim
    return {
        "rows": batch.num_rows,
        "requests": batch.num_requests,
        "tokens": sum(len(sequence.time_gap) for sequence in batch.sequences.values()),
        "unique_ratio": distinct / total if total else 1.0,
        **{f"unique_ratio.{table}": unique[table] / n if n else 1.0 for table, n in uses.items()},
        "bytes_plain": total * entry,
        "bytes_unique": distinct * entry + total * _ID_BYTES,
    }


def _count_uses(batch: Batch, table_of: dict[tuple[str, str], str]) -> dict[str, int]:
    """How many IDs of each table the batch uses."""
    owners: dict[str, dict[str, IdColumn]] = {REQUEST: batch.request_ids, CANDIDATE: batch.candidate_ids}
    owners |= {EVENT + domain: sequence.ids for domain, sequence in batch.sequences.items()}
    uses = dict.fromkeys(batch.unique_ids, 0)
    for (owner, name), table in table_of.items():
        uses[table] += len(owners[owner][name].inverse_indices)
    return uses
