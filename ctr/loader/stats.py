"""What a batch holds and what unique IDs save, for the log."""

from __future__ import annotations

from collections.abc import Sequence

from ctr.batch import Batch
from ctr.loader.collate import ColumnKey, batch_columns, column_tables
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
        ``unique_ratio.<table>`` (unique IDs over all IDs, 1 where there is none), and the bytes of IDs and
        embedding rows that travel: ``bytes_plain`` if an ID and its row travel as often as the ID occurs,
        ``bytes_unique`` if they travel once, with an inverse index for each time.
    """
    counts = _count_ids(batch, column_tables(manifest, ngrams))
    unique = {table: len(ids) for table, ids in batch.unique_ids.items()}
    total, distinct = sum(counts.values()), sum(unique.values())
    entry = _ID_BYTES + _FLOAT_BYTES * dim
    return {
        "rows": batch.num_rows,
        "requests": batch.num_requests,
        "tokens": sum(len(sequence.time_gap) for sequence in batch.sequences.values()),
        "unique_ratio": distinct / total if total else 1.0,
        **{f"unique_ratio.{table}": unique[table] / n if n else 1.0 for table, n in counts.items()},
        "bytes_plain": total * entry,
        "bytes_unique": distinct * entry + total * _ID_BYTES,
    }


def _count_ids(batch: Batch, table_of: dict[ColumnKey, str]) -> dict[str, int]:
    """How many IDs of each table the batch has, repeated ones included."""
    columns = batch_columns(batch)
    counts = dict.fromkeys(batch.unique_ids, 0)
    for key, table in table_of.items():
        counts[table] += len(columns[key].inverse_indices)
    return counts
