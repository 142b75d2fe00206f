"""What the two exported programs read: a name, a shape and a meaning for each input.

    name                       per              values                shape of the program's input
    request.<feature>          request          table row, or dense   (R,), (R, K) of lists, (R, dim)
    candidate.<feature>        candidate        …                     (R, C), (R, C, K), (R, C, dim)
    event.<domain>.<field>     event.<domain>   …                     (R, L), (R, L, K), (R, L, dim)
    <a list>.weights           as the list      its weights           as the list; 0 in the padding
    history.<domain>.lengths   request          number of events      (R,)

Histories hold the oldest event first; what lies behind the last event, candidate or entry of a list is zeros.
The same inputs travel packed in a file (`packed`): values behind each other, and `<per>.ends` or
`<list>.ends` (n + 1,) that say where each owner's begin and end; `ctr/export/load.py` pads them.

R requests, C candidates of one, L events of one, K entries of a list, B candidates of all, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ctr.batch import Batch, IdColumn, Target
from ctr.blocks.padded import PaddedEvents
from ctr.loader.collate import CANDIDATE, EVENT, REQUEST, batch_columns, column_tables
from ctr.tokens.ngram import NgramField
from features.dataset import Column, Manifest
from features.errors import ConfigError

ENDS, WEIGHTS = ".ends", ".weights"


@dataclass(frozen=True)
class Input:
    """One input of a program; see the module."""

    name: str
    per: str  # whose values they are: a request, a candidate, or an event of a domain
    dtype: str
    meaning: str
    several: bool = False  # each owner has a list of them
    table: str | None = None  # values are rows of it
    width: int | None = None  # dense: numbers of each owner

    @property
    def shape(self) -> list[str | int]:
        """Of the padded input, by letters."""
        owner = {REQUEST: ["R"], CANDIDATE: ["R", "C"]}.get(
            self.per, ["R", f"L.{self.per.removeprefix(EVENT)}"]
        )
        behind: list[str | int] = [f"K.{self.name.removesuffix(WEIGHTS)}"] if self.several else []
        return [*owner, *behind, *([self.width] if self.width is not None else [])]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        plain = asdict(self)
        is_list = plain.pop("several")
        return {**plain, "list": is_list, "shape": self.shape}


def inputs_of_requests(manifest: Manifest, ngrams: Sequence[NgramField] = ()) -> list[Input]:
    """What encoding a request reads."""
    tables = column_tables(manifest, ngrams)
    found = [i for c in manifest.features if c.level == REQUEST for i in _feature(c, REQUEST, manifest)]
    for domain, info in manifest.domains.items():
        per = EVENT + domain
        found += [
            Input(f"history.{domain}.lengths", REQUEST, "int64", f"number of events of {domain}"),
            Input(f"{per}.time_gap", per, "float32", "seconds from the event to the request, at least 0"),
            Input(
                f"{per}.clock_gap", per, "int64", "the larger, the older; orders the events of all domains"
            ),
        ]
        found += [i for c in info.side for i in _feature(c, per, manifest)]
        own = [
            t
            for (level, name), t in tables.items()
            if level == per and name == t and t not in manifest.tables
        ]
        found += [
            Input(f"{per}.{t}", per, "int64", "n-gram of events: ctr.tokens.ngram.ngram_ids", table=t)
            for t in own
        ]
    return found


def inputs_of_candidates(manifest: Manifest) -> list[Input]:
    """What scoring candidates reads.

    Raises:
        ConfigError: candidates have no feature.
    """
    found = [i for c in manifest.features if c.level == CANDIDATE for i in _feature(c, CANDIDATE, manifest)]
    if not found:
        raise ConfigError(
            f"an exported model must have a feature of candidates, {manifest.name!r} has none: all "
            "candidates of a request have one score; add one to the spec"
        )
    return found


def _feature(column: Column, per: str, manifest: Manifest) -> Iterable[Input]:
    name, several = f"{per}.{column.name}", column.kind == "ids"
    if column.kind == "dense":
        names = ", ".join(column.fields or [column.name])
        yield Input(name, per, "float32", f"scaled as fitted/scalers.json says: {names}", width=column.dim)
        return
    info = manifest.tables[str(column.table)]
    meaning = (
        f"row of table {column.table} ({info.encode}): 0 is missing, 1 to {info.oov_rows} unknown values"
    )
    if several:
        meaning += "; the mean of the list is read, by weight"
    yield Input(name, per, "int64", meaning, several, column.table)
    if several:
        yield Input(name + WEIGHTS, per, "float32", "1 of a list without weights", True)


def packed(batch: Batch, inputs: Sequence[Input]) -> dict[str, Tensor]:
    """The values of a batch behind each other, with the ends of its requests' candidates and events."""
    columns = {f"{level}.{name}": (column, level) for (level, name), column in batch_columns(batch).items()}
    dense = {f"{REQUEST}.{n}": v for n, v in batch.request_dense.items()}
    dense |= {f"{CANDIDATE}.{n}": v for n, v in batch.candidate_dense.items()}
    counts = torch.bincount(batch.request_index, minlength=batch.num_requests)
    made = {CANDIDATE + ENDS: _ends(counts)}
    for domain, events in batch.sequences.items():
        per = EVENT + domain
        dense |= {f"{per}.{n}": v for n, v in events.dense.items()}
        dense |= {f"{per}.time_gap": events.time_gap, f"{per}.clock_gap": events.clock_gap}
        dense[f"history.{domain}.lengths"] = events.offsets.diff()
        made[per + ENDS] = events.offsets
    for given in inputs:
        name = given.name
        if name in dense:
            made[name] = dense[name]
        elif name.endswith(WEIGHTS) and name not in columns:
            column = columns[name.removesuffix(WEIGHTS)][0]
            ones = torch.ones_like(column.inverse_indices, dtype=batch.label.dtype)
            made[name] = ones if column.weights is None else column.weights
            made[name + ENDS] = _of_list(column)
        else:
            column = columns[name][0]
            made[name] = batch.unique_ids[str(given.table)][column.inverse_indices].long()
            if given.several:
                made[name + ENDS] = _of_list(column)
    return made


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The packed values of several batches as one."""
    found = {}
    for name in parts[0]:
        if name.endswith(ENDS):
            found[name] = _ends(torch.cat([part[name].diff() for part in parts]))
        else:
            found[name] = torch.cat([part[name] for part in parts])
    return found


def _of_list(column: IdColumn) -> Tensor:
    assert column.offsets is not None
    return column.offsets


def _ends(counts: Tensor) -> Tensor:
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def request_batch(given: Mapping[str, Tensor], manifest: Manifest) -> Batch:
    """The requests of padded inputs, without candidates."""
    requests = given[f"history.{next(iter(manifest.domains))}.lengths"].shape[0]
    sequences = {}
    for domain in manifest.domains:
        per = EVENT + domain
        gap = given[f"{per}.time_gap"]
        ids, dense = _columns(given, per + ".")
        sequences[domain] = PaddedEvents(
            offsets=torch.arange(requests + 1, device=gap.device) * gap.shape[1],
            max_length=gap.shape[1],
            time_gap=gap.flatten(),
            clock_gap=dense.pop("clock_gap").flatten() if "clock_gap" in dense else gap.new_zeros(0),
            ids=ids,
            dense={name: values for name, values in dense.items() if name != "time_gap"},
            lengths=given[f"history.{domain}.lengths"],
        )
    ids, dense = _columns(given, f"{REQUEST}.")
    nobody = torch.arange(0, device=gap.device)
    return _batch(requests, nobody, gap, request_ids=ids, request_dense=dense, sequences=sequences)


def candidate_batch(given: Mapping[str, Tensor]) -> Batch:
    """R · C candidates of R requests, of padded inputs."""
    some = next(iter(given.values()))
    requests, each = some.shape[:2]
    index = torch.arange(requests, device=some.device)[:, None].expand(-1, each).flatten()
    ids, dense = _columns(given, f"{CANDIDATE}.")
    floating = next((v for v in given.values() if v.is_floating_point()), torch.empty(0, device=some.device))
    return _batch(requests, index, floating, candidate_ids=ids, candidate_dense=dense)


def _batch(requests: int, index: Tensor, like: Tensor, **given: Any) -> Batch:
    """A batch of these features; what only training reads is empty."""
    each = torch.arange(requests, device=index.device)
    features = ("request_ids", "request_dense", "candidate_ids", "candidate_dense", "sequences")
    empty: dict[str, Any] = {name: {} for name in features}
    targets = {"label": Target.of(like.new_zeros(index.shape))}
    keys: dict[str, Any] = {"request_id": each, "user_id": each, "time": each, "row_id": index}
    return Batch(unique_ids={}, request_index=index, targets=targets, **keys, **{**empty, **given})


def _columns(given: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, IdColumn], dict[str, Tensor]]:
    """IDs and dense values of the owners of one level, a row for each."""
    ids, dense = {}, {}
    deep = 1 if prefix == f"{REQUEST}." else 2  # axes that count owners
    for name, values in given.items():
        if not name.startswith(prefix) or name.endswith(WEIGHTS):
            continue
        rows = values if deep == 1 else values.flatten(0, 1)
        short = name.removeprefix(prefix)
        if short == "clock_gap" or values.is_floating_point():
            dense[short] = rows
        elif (weights := given.get(name + WEIGHTS)) is None:
            ids[short] = IdColumn(rows)
        else:
            ends = torch.arange(rows.shape[0] + 1, device=rows.device) * rows.shape[1]
            ids[short] = IdColumn(rows.flatten(), ends, weights.flatten())
    return ids, dense
