"""What the usual ways hold in memory: each row with its own copy of the history.

    python docs/results/one_array_per_row.py data/simulator lists
    python docs/results/one_array_per_row.py data/simulator matrix

Both read the simulator's tables with pandas, join the features of users and items, and give every impression
the newest earlier events of its user, as `ctr prepare` does. `lists` keeps a list of values per row and
field, as a pandas column of objects. `matrix` pads them to the longest and stacks all columns into one array,
which is how FuxiCTR's loaders hold a part of the data. Nothing is encoded or written. Prints the peak.
"""

import resource
import sys
from pathlib import Path

import numpy as np
import pandas as pd

LENGTHS = {"view": 60, "cart": 30, "search": 30}  # as in pipelines/configs/simulator-hyformer.yaml


def said(step: str, rows: int) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{step:<36} peak {peak:6.2f} GB, {peak * 1e9 / rows:7.0f} bytes an impression", flush=True)


def read(folder: Path) -> pd.DataFrame:
    return pd.concat((pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))), ignore_index=True)


def codes(events: pd.DataFrame) -> dict[str, np.ndarray]:
    """The fields of events but user and time, words as numbers."""
    fields = events.drop(columns=["user_id", "time"])
    return {n: pd.factorize(c)[0] if c.dtype.kind not in "iuf" else c.to_numpy() for n, c in fields.items()}


def main(source: Path, way: str) -> None:
    rows = read(source / "impressions")
    said("impressions read", len(rows))
    rows = rows.merge(pd.read_parquet(source / "users.parquet"), on="user_id", how="left")
    rows = rows.merge(
        pd.read_parquet(source / "items.parquet").drop(columns="tags"), on="item_id", how="left"
    )
    said("users and items joined", len(rows))
    arrays: list[np.ndarray] = []
    for domain, length in LENGTHS.items():
        events = read(source / domain).sort_values(["user_id", "time"], kind="stable", ignore_index=True)
        first = events["user_id"].searchsorted(rows["user_id"])
        key = events["user_id"].to_numpy() * 2**32 + events["time"].to_numpy()
        end = np.searchsorted(key, rows["user_id"].to_numpy() * 2**32 + rows["time"].to_numpy())
        start = np.maximum(first, end - length)
        for name, values in codes(events).items():
            if way == "lists":
                rows[f"{domain}.{name}"] = [values[a:b].tolist() for a, b in zip(start, end, strict=True)]
            else:
                at = np.arange(length) + (end - length)[:, None]
                arrays.append(np.where(at >= start[:, None], values[np.maximum(at, 0)], 0))
            said(f"{domain}.{name} of each row", len(rows))
    if way == "matrix":
        table = [pd.factorize(c)[0] if c.dtype.kind not in "iuf" else c.to_numpy() for _, c in rows.items()]
        stacked = np.column_stack([*table, *arrays])
        said(f"stacked, {stacked.nbytes / 1e9:.2f} GB", len(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
