"""Data sets of one log whose vocabularies differ: cut short, whole, or the same values in other rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.config import RunConfig
from features.dataset import Dataset, Manifest, read_arrow, read_manifest
from features.store.write import hash_files, write_arrow, write_manifest, write_parquet
from tests.ctr.tiny_run import tiny_config
from tests.features.small_log import SHOP_SPEC, changed, run, shop_tables

CUT = {"tables__item": {"max_size": 12, "oov_rows": 3}, "tables__tag": {"max_size": 1}}
WHOLE = {"tables__item": {"oov_rows": 3}}


def shop(root: Path, name: str, **changes: Any) -> Path:
    """Prepare the log of the shop; equal but for the changes of its spec."""
    run(root, changed(SHOP_SPEC, **changes), shop_tables(), out=name)
    return root / name


def config_of(dataset: Path, run_dir: Path, *overrides: str) -> RunConfig:
    """A run of a moment on the shop."""
    return tiny_config(dataset, run_dir, "train.epochs=1", *overrides)


def renumbered(dataset: Path, out: Path, *, seed: int = 0) -> Path:
    """A copy in which every vocabulary has its values in another order, and all IDs follow."""
    shutil.copytree(dataset, out)
    manifest = read_manifest(out)
    maps = {
        table: _shuffle(out / "fitted" / f"{table}.parquet", 1 + info.oov_rows, info.rows, seed)
        for table, info in manifest.tables.items()
        if info.encode == "vocabulary"
    }
    for path in sorted(out.rglob("*.arrow")):
        table = _mapped(read_arrow(path), path, manifest, maps)
        path.unlink()  # it is mapped into memory: the new one is another file
        write_arrow(path, table, batch_rows=None if path.parent.name == "events" else 65_536)
    files = hash_files(out)
    files.pop("manifest.json")
    origin = {name: files.pop(name) for name in manifest.origin}
    write_manifest(out, manifest.model_copy(update={"files": files, "origin": origin}))
    Dataset(out)
    return out


def _shuffle(path: Path, first: int, rows: int, seed: int) -> np.ndarray:
    """Shuffle a vocabulary; the new row of each row."""
    book = pq.read_table(path).sort_by("id")
    order = np.random.default_rng(seed).permutation(rows - first)
    write_parquet(
        path, pa.table({n: book[n] if n == "id" else book[n].take(order) for n in book.column_names})
    )
    new = np.arange(rows)
    new[first + order] = first + np.arange(rows - first)
    return new


def _mapped(table: pa.Table, path: Path, manifest: Manifest, maps: dict[str, np.ndarray]) -> pa.Table:
    columns = manifest.domains[path.stem].side if path.parent.name == "events" else manifest.features
    table_of = {f"id.{c.name}": maps.get(str(c.table)) for c in columns}
    for name in table.column_names:
        if (rows := table_of.get(name)) is not None:
            old = table[name].combine_chunks()
            flat = old.flatten() if pa.types.is_large_list(old.type) else old
            new = pa.array(rows[flat.to_numpy()].astype(flat.to_numpy().dtype))
            if pa.types.is_large_list(old.type):
                new = pa.LargeListArray.from_arrays(
                    pa.array(old.offsets.to_numpy() - old.offsets[0].as_py()), new
                )
            table = table.set_column(table.schema.get_field_index(name), name, new)
    return table
