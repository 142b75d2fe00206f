"""Which tables are drawn anew at each epoch but the first: by name, or by the impressions that a row sees.

From its second epoch on a model meets rows that have already seen the labels of the impressions before it.
Where a row stands for few impressions it holds these labels nearly one by one; the dense weights learn to
read them there, and what they read is not in new impressions. A row of many impressions holds their mean.

Source: MEDA (arXiv 2305.19531); one-epoch overfitting, Zhang et al. (arXiv 2209.06053).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ctr.config import RunConfig
from features.dataset import Manifest
from features.errors import ConfigError

FEW = 100  # training impressions a row: `auto` draws tables below it anew


@dataclass(frozen=True)
class Restart:
    """The tables that are drawn anew, and why, for the log.

    Attributes:
        tables: their names, in the order of the data set.
        reason: a line for people; empty where there is nothing to say.
        per_row: vocabulary table → training impressions a row, where `auto` compared them.
    """

    tables: tuple[str, ...] = ()
    reason: str = ""
    per_row: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The values of the journal's row."""
        drawn = {table: int(table in self.tables) for table in self.per_row}
        return {"impressions_per_row": dict(self.per_row), "drawn_anew": drawn}


NO_RESTART = Restart()


def impressions_per_row(manifest: Manifest, splits: list[str]) -> dict[str, float]:
    """Impressions of these splits for each row of a vocabulary table; values of a list count once a row."""
    impressions = sum(manifest.splits[name].impressions for name in splits)
    tables = {name: info.rows for name, info in manifest.tables.items() if info.encode == "vocabulary"}
    return {name: impressions / rows for name, rows in tables.items()}


def restart_of(config: RunConfig, manifest: Manifest) -> Restart:
    """What `embedding.restart` says of a data set.

    `auto` takes the vocabulary tables with fewer than `FEW` training impressions a row, if there is more than
    one epoch and the rows do not start from another run or from co-occurrence: a new draw would lose that.
    """
    chosen, starts = config.embedding.restart, (config.init, config.lora, config.embedding.pmi_start)
    if chosen != "auto":
        return Restart(tuple(chosen))
    if config.train.epochs == 1 or any(start is not None for start in starts):
        return Restart()
    per_row = impressions_per_row(manifest, config.train.data.split("+"))
    tables = tuple(name for name, impressions in per_row.items() if impressions < FEW)
    if tables:
        named = ", ".join(f"{name} ({per_row[name]:.3g} training impressions a row)" for name in tables)
        told = f"drawn anew at each epoch but the first: {named}"
    elif per_row:
        least = min(per_row, key=lambda name: per_row[name])
        told = (
            f"no table is drawn anew; {least} has the fewest training impressions a row, {per_row[least]:.3g}"
        )
    else:
        told = "no table is drawn anew: none has a vocabulary"
    return Restart(tables, f"embedding.restart auto: {told}; few are below {FEW}", per_row)


def check_restart(config: RunConfig, rows: Mapping[str, int]) -> None:
    """Check that tables which are named exist.

    Raises:
        ConfigError: one does not.
    """
    chosen = config.embedding.restart
    if unknown := sorted(set(() if chosen == "auto" else chosen) - set(rows)):
        raise ConfigError(
            f"embedding.restart must be auto or name tables of the data set {sorted(rows)}, got {unknown}"
        )
