"""`ctr counters RUN --at TIME`: what counters held at a moment, for a service that goes on from it."""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from features.dataset import Dataset
from features.errors import ConfigError, CtrError, DataError
from features.names import under
from features.past.counter_files import write_counters
from features.past.counter_state import counter_states
from features.read.clock import TIME
from features.read.clock_at import clock_at, tick_start
from features.read.dataset_times import DatasetTimes
from features.read.log import Log, read_log
from features.read.moment import SECOND, moment_of_argument, shown_moment
from features.remote.url import remote
from features.remote.working_copy import here
from features.sources.of_spec import open_spec
from features.spec import Spec, load_spec
from pipelines.prepare import with_source
from pipelines.remote_runs import runs_here
from pipelines.runs import read_run_config
from pipelines.terminal import echo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("run_dir", type=Path, help="run directory")
    add(
        "--at",
        required=True,
        metavar="TIME",
        help="seconds or ISO 8601; only what lies before it counts",
    )
    add("--out", type=Path, metavar="FILE", help="a .parquet or .csv file; default: RUN/counters.parquet")
    add(
        "--source",
        help="where the raw logs are now; newer rows may be there too",
    )
    add("--dataset", type=Path, help="where the data set is now, if it moved")


def run(arguments: argparse.Namespace) -> int:
    """Read the log, count, write."""
    with runs_here(arguments.run_dir):
        return _export(arguments, here(arguments.run_dir))


def _export(arguments: argparse.Namespace, run_dir: Path) -> int:
    # The whole data set, whatever part of it the run has seen.
    dataset = Dataset(arguments.dataset or read_run_config(run_dir).dataset)
    spec = load_spec(under(dataset.root, "spec.yaml"))
    if not spec.counters:
        raise ConfigError(f"the spec of {dataset.root} must have counters to be exported, it has none")
    moment = _moment(dataset, arguments.at)
    full, log = _read(with_source(spec, arguments.source))
    _check_same(dataset, log)
    clock, time = clock_at(spec, log, moment)
    out = arguments.out or run_dir / "counters.parquet"
    keys = write_counters(
        out,
        counter_states(full, log, clock=clock, time=time, within=tick_start(log, moment) % SECOND),
        moment=moment,
        time=time,
        spec_sha256=dataset.manifest.spec_sha256,
    )
    for name, count in keys.items():
        echo(f"counter {name}: {count:,} keys")
    for name in spec.pairs:
        echo(f"pair {name}: not exported; score requests must give pair.{name}.*")
    for name in spec.ages:
        echo(f"age {name}: not exported; score requests must give age.{name}")
    echo(f"wrote {out}: counters strictly before {shown_moment(moment)}")
    return 0


def _read(spec: Spec) -> tuple[Spec, Log]:
    """The spec without patterns, and the whole log."""
    try:
        full, tables = open_spec(spec, Path(), {})
        return full, read_log(full, tables)
    except CtrError as error:
        where = remote(spec.source.path) or Path(spec.source.path).resolve()
        error.add_note(f"the raw logs were looked for in {where}; name where they are with --source")
        raise


def _moment(dataset: Dataset, text: str) -> int:
    """The moment that `--at` names; what lies far from the data set is refused."""
    times = DatasetTimes(dataset)
    moment = moment_of_argument(text, zone=times.zone)
    try:
        if times.range is not None:
            times.range.check(moment)
    except ValueError as error:
        raise ConfigError(f"--at: {error}") from None
    return moment


def _check_same(dataset: Dataset, log: Log) -> None:
    """Refuse a log that does not hold the data set's impressions; it may go on behind them.

    Raises:
        DataError: another number of rows, or of labels 1, in the time of the data set.
    """
    splits = dataset.manifest.splits.values()
    ends = [split.time_range for split in splits if split.time_range is not None]
    first, last = min(low for low, _ in ends), max(high for _, high in ends)
    rows = log.rows.filter(pl.col(TIME).is_between(first, last))
    got = (rows.height, int(rows["__label"].sum()))
    want = (sum(s.impressions for s in splits), sum(s.positives for s in splits))
    if got != want:
        raise DataError(
            f"the log must be that of {dataset.root}, {want[0]:,} impressions ({want[1]:,} with label 1) "
            f"from {first} to {last} s, got {got[0]:,} ({got[1]:,}); name the right one with --source"
        )
    lineage = dataset.manifest.lineage
    earlier = 0 if lineage is None else lineage.impressions
    if lineage is not None and (before := log.rows.filter(pl.col(TIME) < first).height) != earlier:
        raise DataError(
            f"the log must hold the {earlier:,} impressions of the days before {dataset.root} too, got "
            f"{before:,}; name with --source where all days lie"
        )
