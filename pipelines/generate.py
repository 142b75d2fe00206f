"""`ctr generate STAGE CONFIG`: train a next-behaviour generator, decode with it, compare strategies."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ctr.build import check_no_early_stopping, open_dataset, pick_device
from ctr.distributed.world import World
from ctr.generate.baselines import ItemNeighbours, Popularity
from ctr.generate.chosen_requests import ChosenRequests, choose_requests, interactions, item_codes
from ctr.generate.config import GenerateConfig, load_generate_config
from ctr.generate.metrics import recalls
from ctr.generate.ranking import Ranker
from ctr.generate.recall_intervals import Recalls
from ctr.generate.report import combine_reports, write_report
from ctr.generate.retrieval import (
    Retrieved,
    as_markdown,
    click_scores,
    figures,
    ranked_figures,
    retrieve,
    timed,
    write_items,
)
from ctr.generate.semantic_ids import save_semantic_ids
from ctr.generate.trained import make_decoder, open_ids
from ctr.generate.training import (
    FOLDER,
    GeneratorTrainer,
    best_checkpoint,
    build_generator,
    generator_loader,
    mean_loss,
    semantic_ids,
    training_view,
)
from ctr.generate.views import Donors
from ctr.runs.directory import RunDir
from ctr.runs.versions import check_versions
from ctr.tracking import Tracker
from ctr.training.trainer import Outcome
from features.dataset import Dataset
from features.errors import ConfigError
from features.names import check_name
from pipelines.options import only_with
from pipelines.runs import open_run
from pipelines.terminal import echo
from pipelines.train import describe_outcome, fit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("stage", choices=("train", "decode", "evaluate", "combine"))
    add("config", type=Path, help="YAML configuration of the generator")
    add("--set", action="append", default=[], metavar="A.B=1", dest="overrides")
    add("--runs", type=Path, nargs="+", default=[], metavar="RUN", help="of combine: evaluated runs")
    add("--out", type=Path, metavar="DIR", help="of combine: where the table goes")


def run(arguments: argparse.Namespace) -> int:
    """Run one stage."""
    check_versions()
    if arguments.stage != "combine":
        only_with("combine", "runs out", arguments, add_arguments)
    config = load_generate_config(arguments.config, arguments.overrides)
    if arguments.stage == "combine":
        echo(combine(config, arguments.runs, arguments.out))
        return 0
    if arguments.stage == "train":
        outcome = train(config)
        describe_outcome(config, outcome, following=f"ctr generate evaluate {arguments.config}")
        return 0 if outcome.stopped_by is None else 128 + outcome.stopped_by
    with RunDir.open_results(config.run) as run_dir:
        if arguments.stage == "decode":
            echo(as_markdown(compare(config, run_dir, [config.strategy], baselines=False)[0]))
        else:
            echo(evaluate(config, run_dir))
    return 0


def combine(config: GenerateConfig, runs: Sequence[Path], out: Path | None) -> str:
    """One table of several runs, evaluated as the configuration says, as Markdown."""
    if out is None:
        raise ConfigError("combine must be told by --out where the table goes")
    how = config.generation
    return combine_reports([run / "report" for run in runs], out, split=how.split, k=max(how.ks))


def train(config: GenerateConfig) -> Outcome:
    """Train or resume the generator that a configuration names."""
    world = World.single(pick_device(config.train.device))
    dataset = open_dataset(config)
    ids = semantic_ids(config, dataset.manifest, Path(config.run) / FOLDER)
    state = build_generator(config, dataset.manifest, ids, world.device)
    view = training_view(dataset, config)
    some = view.manifest.splits["valid"].requests > 0
    if not some:
        check_no_early_stopping(config.train, f"no request of that of {dataset.root} can be learned from")
    make = partial(
        GeneratorTrainer,
        train=generator_loader(config, view, "train", train=True),
        valid=generator_loader(config, view, "valid", train=False) if some else None,
        objective=mean_loss,
        popularity=np.bincount(interactions(dataset, config)[1], minlength=len(ids.tokens)),
    )
    return fit(
        config,
        dataset,
        state,
        make,
        world=world,
        prepare=lambda d: save_semantic_ids(d.path / FOLDER, ids),
        kind="generator",
    )


def evaluate(config: GenerateConfig, run_dir: RunDir) -> str:
    """Decode by every strategy, write the report and track its figures; the report as Markdown."""
    rows, recall = compare(config, run_dir, list(config.strategies), baselines=True)
    how, tracking = config.generation, config.tracking
    text = write_report(run_dir.report, rows, [recall], k=max(how.ks), split=how.split)
    if not run_dir.record():
        return text
    step = best_checkpoint(run_dir.path).step
    with Tracker(run_dir, uri=tracking.uri, experiment=tracking.experiment, system_seconds=0) as tracker:
        tracker.begin(step)
        for name, row in rows.items():
            figures = {key.replace("@", "_at_"): value for key, value in row.items()}
            wall = {"ms_per_request": figures.pop("ms_per_request")}  # what depends on the clock
            tracker.log(f"generate/{name}", step, figures, wall=wall)
        tracker.artifact(run_dir.report)
    return text


def compare(
    config: GenerateConfig, run_dir: RunDir, names: Sequence[str], *, baselines: bool
) -> tuple[dict[str, dict[str, float]], Recalls]:
    """Decode by the named strategies; write their items into the run; figures, and recall by request."""
    dataset = open_dataset(config)
    requests = choose_requests(dataset, config)
    ranker = open_ranker(config) if config.generation.ranker else None
    rows: dict[str, dict[str, float]] = {}
    ids = open_ids(run_dir.path)
    codes = item_codes(dataset, config.generator.candidate, len(ids.tokens))
    request_id, user_id = (requests.data.requests[name].to_numpy() for name in ("request_id", "user_id"))
    recall = Recalls(request_id, user_id, {})

    def add(name: str, found: Retrieved) -> None:
        ks, vectors = config.generation.ks, ids.vectors.numpy()
        rows[name] = figures(found, requests, vectors, items=len(ids.items), ks=ks)
        recall.recall[name] = recalls(found.items, requests.wanted, k=max(ks))
        clicks = click_scores(ranker, requests, config, found.ranked) if ranker else None
        if clicks is not None:
            rows[name] |= ranked_figures(found, clicks, requests, ks=ks)
        path = run_dir.predictions / f"{config.generation.split}-items-{check_name(name, 'strategy')}.parquet"
        write_items(path, found, clicks, requests, codes)
        shown = "  ".join(
            f"{key} {value:.4f}" for key, value in rows[name].items() if key.startswith("recall")
        )
        echo(f"{name}: {shown}  {found.seconds:.0f} s", err=True)

    if baselines:
        for name, found in baseline_items(dataset, config, requests, len(ids.tokens)):
            add(name, found)
    for name in names:
        decoder = make_decoder(run_dir.path, config.strategies[name], dataset.manifest)
        add(name, retrieve(decoder, requests, config, ranker))
    return rows, recall


def baseline_items(
    dataset: Dataset, config: GenerateConfig, requests: ChosenRequests, rows: int
) -> Iterator[tuple[str, Retrieved]]:
    """What popularity and item-kNN give for the same requests."""
    seen = requests.seen if config.generation.exclude_seen else [np.empty(0, np.int64)] * len(requests.seen)
    count, first = config.generation.items, 1 + dataset.manifest.tables[config.ids.table].oov_rows
    users, items = interactions(dataset, config)
    real = items >= first
    users, items = users[real], items[real]
    popularity = Popularity(np.bincount(items, minlength=rows))
    yield "popularity", timed(lambda: popularity.rank(seen, items=count))
    recent = [own[-config.generation.recent :] for own in requests.history]
    neighbours = ItemNeighbours(users, items, rows=rows, neighbours=config.generation.neighbours)
    yield "item-kNN", timed(lambda: neighbours.rank(recent, seen, items=count))


def open_ranker(config: GenerateConfig) -> Ranker:
    """The click model that ranks."""
    opened = open_run(RunDir(Path(config.generation.ranker or "")))
    blind = config.generation.ranker_blind
    donors = Donors(opened.dataset, candidate=config.generator.candidate, blind=blind)
    return Ranker(opened.config, opened.dataset, opened.state, opened.device, donors)
