"""`ctr evaluate --compare A B …`: is B better than A on the same test rows, from their predictions alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from ctr.compare import Cell, Judgement, compare_files, judge
from ctr.compare.combine import Noise
from ctr.compare.files import open_predictions
from ctr.compare.render import markdown, notes, table, to_json
from features.durable import replace_file
from features.durable.own import check_free, claim, holds
from features.errors import ConfigError
from features.names import printable
from pipelines.terminal import echo
from pipelines.unseen import warned_of_files

_WIDTH = 132  # of the table where the output is no terminal
_is_comparison = holds("comparison.json", "comparison.md")  # of before the marker


@dataclass(frozen=True)
class Arm:
    """One model: the predictions of its trainings, one for each seed."""

    name: str
    paths: tuple[Path, ...]


def parse_arms(texts: Sequence[str]) -> list[Arm]:
    """Arms from `[name=]path[,path…]`, the base first.

    Raises:
        ConfigError: fewer than two, equal names, or numbers of trainings that differ.
    """
    if len(texts) < 2:
        raise ConfigError(f"--compare must name a base and at least one variant, got {' '.join(texts)}")
    arms = [_parse(text) for text in texts]
    for name, count in Counter(arm.name for arm in arms).items():
        if count > 1:
            raise ConfigError(f"models must have different names, got {name} {count} times; write name=path")
    sizes = {arm.name: len(arm.paths) for arm in arms}
    if len(set(sizes.values())) > 1:
        raise ConfigError(f"every model must have as many trainings as the base, in its order, got {sizes}")
    return arms


def _parse(text: str) -> Arm:
    if Path(text).exists():
        return Arm(_name(Path(text)), (Path(text),))
    name, given, listed = text.partition("=")
    paths = tuple(Path(part) for part in (listed if given else text).split(","))
    return Arm(name if given else _name(paths[0]), paths)


def _name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def compare(
    texts: Sequence[str],
    *,
    metrics: Sequence[str] | None = None,
    alpha: float = 0.05,
    noise: Noise = "own",
    where: tuple[str, str] | None = None,
    task: str | None = None,
    out: Path | None = None,
) -> list[Judgement]:
    """Compare, print the table, and write it where asked.

    Args:
        texts: the base and its variants, each `[name=]path[,path…]`.
        metrics: which to judge; None: all by which models are compared.
        alpha: of a verdict, over all variants of a metric.
        noise: see `ctr.compare.combine`.
        where: (slice, value): only these rows.
        task: of runs with several tasks; None: the first one.
        out: folder for comparison.json and comparison.md.

    Raises:
        ConfigError: see `parse_arms`.
        DataError: see `ctr.compare.compare_files`.
    """
    arms = parse_arms(texts)
    if out is not None:
        check_free(out, "comparison", known=_is_comparison)
    judgements = judge(_cells(arms, where, task), metrics=metrics, alpha=alpha, noise=noise)
    paths = [path for arm in arms for path in arm.paths]
    seen = warned_of_files(paths, open_predictions(paths[0], task=task).path)
    judgements = [replace(judgement, caveats=(*judgement.caveats, *seen)) for judgement in judgements]
    show(judgements, alpha=alpha)
    if out is not None:
        settings = {
            "models": {arm.name: [str(path) for path in arm.paths] for arm in arms},
            "base": arms[0].name,
            "alpha": alpha,
            "noise": noise,
            "where": list(where) if where else None,
            **({} if task is None else {"task": task}),
        }
        claim(out, "comparison", known=_is_comparison)
        replace_file(out / "comparison.md", markdown(judgements, alpha=alpha, base=arms[0].name).encode())
        replace_file(out / "comparison.json", to_json(judgements, settings=settings).encode())
        echo(f"\nwrote {out / 'comparison.md'} and {out / 'comparison.json'}")
    return judgements


def show(judgements: Sequence[Judgement], *, alpha: float) -> None:
    """Print judgements as a table, and what they do not cover below it."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table(judgements, alpha=alpha))
    console.print(printable("\n".join(["", *notes(judgements)])), highlight=False, markup=False)


def _cells(arms: Sequence[Arm], where: tuple[str, str] | None, task: str | None) -> dict[str, list[Cell]]:
    base, *variants = arms
    cells: dict[str, list[Cell]] = {arm.name: [] for arm in variants}
    for seed, path in enumerate(base.paths):
        pairs = compare_files(path, {arm.name: arm.paths[seed] for arm in variants}, where=where, task=task)
        for name, pair in pairs.items():
            cells[name].append(Cell(pair=pair, seed=seed))
    rows = {(cell.pair.rows, cell.pair.positives) for found in cells.values() for cell in found}
    if len(rows) > 1:
        raise ConfigError(
            f"all trainings must be scored on the same test rows, got (rows, labels of 1) {sorted(rows)}; "
            f"compare each test period for itself"
        )
    return cells
