"""Histories without times in batches: the events of each list, and gaps of zero."""

from __future__ import annotations

from pathlib import Path

from ctr.config import LoaderConfig
from ctr.loader import Loader
from tests.features.list_log import SPEC, histories, prepared, random_lines


def test_batches_hold_the_lists(tmp_path: Path) -> None:
    data = prepared(tmp_path, SPEC, random_lines(5))
    ids = data.events("read").ids["news"].values
    requests = data.split("train").requests
    bounds = [requests[f"{part}.read"].to_pylist() for part in ("start", "end")]
    want = {i: ids[a:b].tolist() for i, (a, b) in enumerate(zip(*bounds, strict=True))}
    found = {}
    for batch in Loader(data, "train", LoaderConfig(batch_rows=16, window=50), seed=1).iterate(0):
        events = batch.sequences["read"]
        assert events.time_gap.tolist() == [0.0] * int(events.offsets[-1])
        news = batch.unique_ids["news"][events.ids["news"].inverse_indices].tolist()
        for i, request in enumerate(batch.request_id.tolist()):
            found[request] = news[int(events.offsets[i]) : int(events.offsets[i + 1])]
    assert found == want
    assert [len(own) for own in histories(data)] == [len(want[i]) for i in range(len(want))]
