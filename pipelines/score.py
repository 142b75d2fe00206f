"""`ctr score RUN`: score a split or a file of score requests from cached states, or serve over HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
from torch import nn

from ctr.build import ngrams_of
from ctr.models.model import Model
from ctr.predictions import RowKeys
from ctr.runs.directory import RunDir
from ctr.runs.signals import GracefulStop
from ctr.serving.cache import CacheStats, StateCache
from ctr.serving.files import read_score_requests, write_scores
from ctr.serving.lookup import FeatureLookup
from ctr.serving.requests import RequestCollator, split_requests
from ctr.serving.scorer import MICRO_BATCH, Scorer, model_digest
from ctr.serving.service import ScoreResponse, ScoreService
from ctr.training.scoring import outputs_of_run
from features.errors import ConfigError
from features.names import under
from features.past.counter_files import CounterFile, read_counters
from features.remote.working_copy import here
from features.spec import load_spec
from pipelines.options import number, only_with
from pipelines.remote_runs import runs_here
from pipelines.runs import DATASET_HELP, OpenRun, open_run
from pipelines.terminal import echo

MOST = 10_000  # candidates of a score request


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("run_dir", type=Path, help="run directory")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--split", choices=("train", "valid", "test"), help="its requests with their candidates"
    )
    what.add_argument(
        "--requests", "--questions", type=Path, metavar="FILE", help="JSON or Parquet file of score requests"
    )
    what.add_argument("--serve", action="store_true", help="answer score requests over HTTP on 127.0.0.1")
    add("--out", type=Path, metavar="FILE", help="Parquet file of the scores")
    add("--port", type=int, default=8765, help="of --serve; 0: a free one; default: 8765")
    add("--checkpoint", default="best", help="best, last or a step number")
    add("--dataset", type=Path, help=DATASET_HELP)
    add("--raw", action="store_true", help="scores without the calibration of the run")
    add(
        "--micro-batch",
        type=int,
        default=MICRO_BATCH,
        metavar="N",
        help="candidates scored at a time; default: 256",
    )
    add(
        "--cache-mb",
        type=int,
        default=256,
        metavar="N",
        help="MiB of request states kept; 0: none; default: 256",
    )
    add(
        "--counters",
        type=Path,
        metavar="FILE",
        help="of score requests: a Parquet file of ctr counters, to fill in counter features",
    )
    add("--append", action="store_true", help="extend states by new events; refused where not exact")
    add("--max-candidates", type=int, default=MOST, metavar="N", help="of a score request; default: 10000")
    add(
        "--timeout",
        type=number(0),
        default=10.0,
        metavar="S",
        help="of --serve, seconds for a score request; default: 10",
    )


def run(arguments: argparse.Namespace) -> int:
    """Score, or serve until stopped; the exit code."""
    _check(arguments)
    with runs_here(arguments.run_dir):
        return _score(arguments)


def _score(arguments: argparse.Namespace) -> int:
    # Reading takes no lock: a run may be scored while it is trained.
    opened = open_run(
        RunDir(here(arguments.run_dir)),
        dataset=arguments.dataset,
        checkpoint=arguments.checkpoint,
        raw=arguments.raw,
    )
    with opened.state.for_scoring() as model:
        lookup = FeatureLookup(opened.dataset, _counters(opened, arguments))
        service = ScoreService(make_scorer(opened, model, arguments), lookup)
        if arguments.serve:
            return _serve(service, opened, arguments)
        keys = RowKeys(opened.dataset)
        rows = write_scores(arguments.out, _responses(service, opened, arguments), keys=keys)
    echo(f"wrote {rows:,} scores to {arguments.out} (weights of step {opened.step})")
    echo(describe(service.stats))
    return 0


def make_scorer(opened: OpenRun, model: nn.Module, arguments: argparse.Namespace) -> Scorer:
    """The scorer of an opened run."""
    config = opened.config
    ngrams = ngrams_of(config, opened.dataset.manifest)
    return Scorer(
        cast(Model, model),
        opened.state.tables,
        RequestCollator(opened.dataset, max_len=config.loader.max_len, ngrams=ngrams),
        cache=StateCache(arguments.cache_mb * 2**20) if arguments.cache_mb else None,
        digest=model_digest(opened.state, model),
        micro_batch=arguments.micro_batch,
        append=arguments.append,
        bf16=config.train.precision == "bf16",
        device=opened.device,
        outputs=outputs_of_run(opened.state),
    )


def describe(stats: CacheStats) -> str:
    """The cache in a line."""
    return (
        f"cache: {stats.hits:,} hits, {stats.appended:,} extended, {stats.misses:,} misses "
        f"({stats.hit_rate:.0%}); {stats.entries:,} states, {stats.bytes / 2**20:.1f} of "
        f"{stats.max_bytes / 2**20:.0f} MiB, {stats.evicted:,} dropped"
    )


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.out is None) != arguments.serve:
        raise ConfigError(
            "--out must name the file of the scores, and is not for --serve; give one of the two"
        )
    if not arguments.serve:
        only_with("--serve", "port timeout", arguments, add_arguments)
    if arguments.split is not None:
        only_with("--requests and --serve", "counters max-candidates", arguments, add_arguments)
    for name in ("cache_mb", "max_candidates", "timeout"):
        if (value := getattr(arguments, name)) < 0 or (name != "cache_mb" and not value):
            raise ConfigError(f"--{name.replace('_', '-')} must be positive, got {value}")


def _counters(opened: OpenRun, arguments: argparse.Namespace) -> CounterFile | None:
    """The export that counter features are filled in from."""
    if arguments.counters is None:
        return None
    spec = load_spec(under(opened.dataset.root, "spec.yaml"))
    return read_counters(arguments.counters, spec, spec_sha256=opened.dataset.manifest.spec_sha256)


def _responses(
    service: ScoreService, opened: OpenRun, arguments: argparse.Namespace
) -> Iterator[tuple[ScoreResponse, np.ndarray | None]]:
    if arguments.split is not None:
        for request, candidates in split_requests(opened.dataset, arguments.split):
            yield service.respond(request, candidates), candidates.plain["row_id"]
        return
    for score_request in read_score_requests(arguments.requests, most=arguments.max_candidates):
        row_ids = None if score_request.row_ids is None else np.array(score_request.row_ids, dtype=np.int64)
        yield service(score_request), row_ids


def _serve(service: ScoreService, opened: OpenRun, arguments: argparse.Namespace) -> int:
    from ctr.serving.http import (
        HOST,
        Limits,
        listen,
        make_app,
        make_server,
    )  # the server's libraries load here

    limits = Limits(candidates=arguments.max_candidates, seconds=arguments.timeout)
    with listen(arguments.port) as listener:
        port = listener.getsockname()[1]
        echo(
            f"POST score requests to http://{HOST}:{port}/score (weights of step {opened.step}); stop: Ctrl-C"
        )
        with GracefulStop() as stop:  # the server ends on the signal itself, then hands it on
            make_server(make_app(service, limits), limits).run(sockets=[listener])
    echo(describe(service.stats), err=True)
    return stop.exit_code
