"""`ctr bench [SUITE …]`: calibrated, interleaved measurements with targets; tables, plots and JSON."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ctr.bench.results import Settings
from ctr.bench.session import check_suites, measure, write_docs
from ctr.bench.suites import DEFAULT, SUITES
from ctr.config import load_config
from features.dataset import Dataset
from features.errors import ConfigError
from pipelines.options import at_least_one, only_with
from pipelines.terminal import echo

PAGE = Path("docs/benchmarks.md")
IMAGES = "images/bench"
PLACES = ("out", "write_docs", "page")  # options that say where results go
# What of a run's configuration says what is measured; the rest names places and schedules.
SECTIONS = ("model", "embedding", "optimizer", "loader")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)}; default: {', '.join(DEFAULT)}")
    add(
        "--quick",
        action="store_true",
        help="tiny sizes: shows that everything works, the figures mean nothing",
    )
    add("--threads", type=at_least_one, help="threads of torch; default: torch's own choice")
    add("--dataset", type=Path, metavar="DIR", help="a prepared data set instead of synthetic ones")
    add("--config", type=Path, help="a run's YAML: its model, embedding, optimizer and loader are measured")
    add("--precision", choices=["fp32", "bf16"], default="fp32", help="of the forward pass")
    add(
        "--rows-per-request", type=at_least_one, nargs="+", default=[5], metavar="N", help="of synthetic data"
    )
    add("--requests", type=at_least_one, help="requests in a training batch; default: 40")
    add("--lengths", type=at_least_one, nargs="+", metavar="N", help="of score and retrieval: events")
    add("--candidates", type=at_least_one, nargs="+", metavar="N", help="of score and retrieval")
    add("--rounds", type=at_least_one, help="interleaved rounds; default: 5")
    add("--out", type=Path, default=Path("runs/bench"), help="directory of the results; default: runs/bench")
    add("--write-docs", action="store_true", help="put tables and plots into --page, for its old ones")
    add("--page", type=Path, default=PAGE, metavar="FILE", help=f"of --write-docs; default: {PAGE}")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, write."""
    suites = arguments.suites or DEFAULT
    check_suites(suites)
    _check_options(suites, arguments)
    page: Path = arguments.page
    if arguments.write_docs and not page.is_file():
        raise ConfigError(
            f"--write-docs must run where {page} is, in the root of the checkout; got {Path.cwd()}"
        )
    if arguments.dataset is not None:
        Dataset(arguments.dataset)  # wrong places are named before anything is measured
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as scratch:
        settings = Settings(
            scratch=Path(scratch),
            quick=arguments.quick,
            dataset=arguments.dataset,
            config=_sections(arguments),
            precision=arguments.precision,
            rows_per_request=tuple(arguments.rows_per_request),
            requests=arguments.requests or (4 if arguments.quick else 40),
            lengths=arguments.lengths and tuple(arguments.lengths),
            candidates=arguments.candidates and tuple(arguments.candidates),
            rounds=arguments.rounds or (1 if arguments.quick else 5),
            say=_say,
        )
        with _pointing_to_data(arguments):
            report = measure(
                suites, settings, out=arguments.out, show=_show, options=changed_options(arguments)
            )
    if arguments.write_docs:
        write_docs(report, page, images=IMAGES)
    echo(f"results: {arguments.out}/bench.md, bench.json, images/")


def _check_options(suites: Sequence[str], arguments: argparse.Namespace) -> None:
    """Refuse what would not change what is measured or where it goes."""
    if not {"score", "retrieval"} & set(suites):
        only_with("the suites score and retrieval", "lengths candidates", arguments, add_arguments)
    if arguments.dataset is not None:
        only_with("synthetic data, so not for --dataset,", "rows-per-request", arguments, add_arguments)
    if not arguments.write_docs:
        only_with("--write-docs", "page", arguments, add_arguments)


@contextmanager
def _pointing_to_data(arguments: argparse.Namespace) -> Iterator[None]:
    """What does not fit between a run's configuration and synthetic data is said with the remedy."""
    try:
        yield
    except ConfigError as error:
        if arguments.config is None or arguments.dataset is not None:
            raise
        own = load_config(arguments.config).dataset
        raise ConfigError(
            f"{error}\n{arguments.config} is measured on synthetic data, which it does not fit; "
            f"add --dataset {own} (or where its data set lies)"
        ) from None


def changed_options(arguments: argparse.Namespace) -> str:
    """The options that are not at their default and change what is measured, as on the command line.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_arguments(parser)
        >>> changed_options(parser.parse_args(["train", "--rounds", "3", "--rows-per-request", "1", "5"]))
        '--rows-per-request 1 5 --rounds 3'
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    words: list[str] = []
    for action in parser._actions:
        value = getattr(arguments, action.dest)
        if not action.option_strings or action.dest in PLACES or value == action.default:
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [action.option_strings[0], *map(str, values)]
    return shlex.join(words)


def _sections(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The part of a configuration that is measured, or None for the peer's."""
    if arguments.config is None:
        return None
    plain = load_config(arguments.config).model_dump(mode="json")
    return {name: plain[name] for name in SECTIONS}


def _show(text: str) -> None:
    echo(text + "\n")


def _say(text: str) -> None:
    echo(text, err=True)
