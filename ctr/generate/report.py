"""The table of strategies on disk: Markdown, JSON, a picture, and the recall of every request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctr.generate import recall_intervals
from ctr.generate.plots import draw
from ctr.generate.recall_intervals import Recalls, read_recalls, with_intervals, write_recalls
from ctr.generate.retrieval import as_markdown
from features.durable import replace_file
from features.durable.own import claim, holds
from features.errors import ConfigError, DataError

Figures = dict[str, dict[str, float]]  # strategy → figure → value
JSON, RECALLS = "generation.json", "generation-recall.parquet"


def write_report(folder: Path, rows: Figures, runs: Sequence[Recalls], *, k: int, split: str) -> str:
    """Compute the intervals of the recalls and write everything.

    Args:
        folder: of the report, made if need be.
        rows: the figures of each strategy.
        runs: recall of every request among the first k items, of one run or of several.
        k: how many items count.
        split: what was generated for.

    Returns:
        The report as Markdown.

    Raises:
        DataError: the runs are of different requests.
    """
    recalls = with_intervals(runs)
    text = f"{as_markdown(rows)}\n\n{recall_intervals.as_markdown(recalls, k=k)}\n\n{_note(runs)}"
    claim(folder, "generation report", known=holds(JSON, "generation.md"))
    draw(folder / "generation.png", recalls, {name: row["ms_per_request"] for name, row in rows.items()}, k=k)
    facts = {"requests": len(runs[0].request_id), "split": split, "k": k, "strategies": rows}
    facts["judged"] = {name: found.plain() for name, found in recalls.items()}
    replace_file(folder / JSON, json.dumps(facts, indent=1).encode())
    replace_file(folder / "generation.md", (text + "\n\n![Recall by strategy](generation.png)\n").encode())
    if len(runs) == 1:
        write_recalls(folder / RECALLS, runs[0])
    return text


def combine_reports(folders: Sequence[Path], out: Path, *, split: str, k: int) -> str:
    """One table from the reports of several runs: means of all figures, recall with intervals.

    Args:
        folders: reports that `write_report` wrote of one run each.
        out: folder of the new report.
        split: what all of them must be generated for.
        k: how many items must count in all of them.

    Raises:
        ConfigError: fewer than two.
        DataError: one is missing, of another split or number of items, or they are of different requests.
    """
    if len(set(folders)) < 2:
        raise ConfigError(f"--runs must name two runs or more, got {len(set(folders))}")
    facts, runs = [_read(folder / JSON) for folder in folders], [read_recalls(f / RECALLS) for f in folders]
    for folder, found in zip(folders, facts, strict=True):
        if (found["split"], found["k"]) != (split, k):
            raise DataError(
                f"{folder} must hold recall@{k} on {split}, as the configuration says, got "
                f"recall@{found['k']} on {found['split']}; evaluate that run anew, or change generation"
            )
    every = [found["strategies"] for found in facts]
    rows = {
        name: {figure: float(np.mean([one[name][figure] for one in every])) for figure in every[0][name]}
        for name in every[0]
        if all(name in one and one[name].keys() == every[0][name].keys() for one in every)
    }
    return write_report(out, rows, runs, k=k, split=split)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must be written by ctr generate evaluate: {error}") from None
    return found


def _note(runs: Sequence[Recalls]) -> str:
    users = len(np.unique(runs[0].user_id))
    trained = f"{len(runs)} runs, whose noise they hold" if len(runs) > 1 else "one run"
    count = len(runs[0].request_id)
    return f"95 % intervals from {count:,} requests of {users:,} users, who are resampled; {trained}."
