"""`ctr simulate --out DIR`: write a raw click log whose click probabilities are known (docs/simulator.md)."""

from __future__ import annotations

import argparse
from pathlib import Path

from features.synthetic import simulate, write_days
from pipelines.terminal import echo

SIZES = ("users", "items", "days", "requests-per-user", "candidates", "events-per-user", "categories")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--out", required=True, type=Path, help="directory to write")
    parser.add_argument("--seed", type=int, default=7)
    for name in SIZES:
        parser.add_argument(f"--{name}", type=int, help="a size; the default is the demo's")
    parser.add_argument("--purchases", action="store_true", help="clicks are followed by purchases, late")
    parser.add_argument(
        "--by-day", type=Path, metavar="DIR", help="write the log once more, cut into days: DIR/day-01, …"
    )
    parser.add_argument("--accidental", type=float, default=0.0, help="share of clicked views to plant")


def run(arguments: argparse.Namespace) -> None:
    """Simulate and print what was written and the best possible AUC."""
    given = {name.replace("-", "_"): getattr(arguments, name.replace("-", "_")) for name in SIZES}
    sizes = {name: value for name, value in given.items() if value is not None}
    extras = {"accidental": arguments.accidental, "purchases": arguments.purchases}
    meta = simulate(arguments.out, seed=arguments.seed, **extras, **sizes)
    print_summary(arguments.out, meta)
    if arguments.by_day is not None:
        days = write_days(arguments.out, arguments.by_day)
        echo(f"wrote {len(days)} days: {days[0]} to {days[-1].name}")


def print_summary(out: Path, meta: dict[str, object]) -> None:
    """The facts of a simulated log, one per line."""
    echo(f"wrote {out}")
    for name, value in meta.items():
        if isinstance(value, int | float):
            echo(f"  {name}: {value:,.4f}" if isinstance(value, float) else f"  {name}: {value:,}")
