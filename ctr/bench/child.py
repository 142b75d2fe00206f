"""The process that `ctr.bench.memory.in_child` starts: a case on stdin, figures on stdout, both in JSON."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from itertools import islice
from typing import Any

import torch

from ctr.bench.memory import peak_rss
from ctr.bench.variants import ALL_OFF, BASELINE, VARIANTS
from ctr.bench.workload import Workload, endless, training_batches
from ctr.config import parse_config
from features.dataset import Dataset


def measure(order: dict[str, Any]) -> dict[str, float]:
    """Build the case, train its steps, and read the peak."""
    torch.set_num_threads(order["threads"])
    loaded = peak_rss()
    config = parse_config(order["config"], what="bench case")
    dataset = Dataset(config.dataset)
    variant = {v.name: v for v in (BASELINE, ALL_OFF, *VARIANTS)}[order["variant"]]
    workload = Workload.build(config, dataset.manifest)
    rows = 0
    with variant.active(), closing(endless(training_batches(dataset, config))) as batches:
        for batch in islice(batches, order["steps"]):
            workload.step(variant.batch(batch, dataset.manifest))
            rows += batch.num_rows
    return {"peak": peak_rss(), "loaded": loaded, "rows": rows}


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
