"""The report of an ablation: one HTML file that needs nothing else, Markdown, pictures, and results.json."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ctr.ablate.plots import NAMES, draw_all, si
from ctr.ablate.results import Line, Results
from ctr.compare import Judgement
from ctr.durable import replace_file
from ctr.report_plots import number

CAPTIONS = {
    "deltas": "Difference from the base, the largest gain first; lines are 95 % intervals, not corrected",
    "windows": "Difference in AUC in each test window, mean over seeds",
    "cost": "Difference from the base against the operations of a training row",
    "slices": "Difference in AUC in parts of the test rows",
}
READING = (
    "Every variant is compared with the base on the same test rows and for the same seeds.",
    "An interval says where the difference would lie for other users and other seeds of the same kind; it is "
    "95 % for each variant alone.",
    "p is corrected by Holm over the variants of a metric: with no effect anywhere, any verdict in a metric "
    "comes with a chance of at most 5 %.",
    "Detectable is the difference that would have been found in four of five ablations like this one. "
    "No evidence does not mean no effect: smaller ones than that pass unseen.",
)
_TEMPLATE = Path(__file__).with_name("report_template.html")


def write_report(folder: Path, results: Results) -> Path:
    """Write results.json, report.md, the pictures and, last, index.html, each whole.

    Args:
        folder: made where it is missing; pictures of an earlier report that this one has not are removed.
        results: what to say.

    Returns:
        Path of index.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = draw_all(results)
    for name in CAPTIONS.keys() - images.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)
    files = {f"{name}.png": image for name, image in images.items()}
    files["results.json"] = (json.dumps(results.to_dict(), indent=2, allow_nan=False) + "\n").encode()
    files["report.md"] = markdown(results, images).encode()
    files["index.html"] = html(results, images).encode()
    for name, content in files.items():
        replace_file(folder / name, content)
    return folder / "index.html"


def title(results: Results) -> str:
    """The heading."""
    return f"Ablation {results.plan.name}"


Table = tuple[list[str], list[list[str]]]  # head and rows


def table(results: Results) -> Table:
    """The first metric and the cost: the base, then the variants, the largest gain first."""
    name = NAMES[results.plan.metrics[0]]
    head = ["variant", name, f"Δ {name}", "p (Holm)", "verdict", "detectable"]
    head += ["parameters", "FLOPs/row", "rows/s", "peak MiB"]
    same = [line for line in results.lines if line.same_as_base]
    return head, [_row(line, results) for line in (results.base, *results.compared(), *same)]


def _row(line: Line, results: Results) -> list[str]:
    judgement = line.judgements.get(results.plan.metrics[0])
    if judgement is not None:
        quality = [number(judgement.value), delta(judgement), p_value(judgement), verdict(judgement)]
        quality.append("–" if judgement.detectable is None else f"± {judgement.detectable:.4f}")
    elif line.same_as_base:
        quality = ["–", "same run as the base", "–", "–", "–"]
    else:
        quality = [_base_value(results), "–", "–", "–", "–"]
    return [line.name, *quality, *_cost(line)]


def others(results: Results) -> Table:
    """The other metrics: differences and verdicts."""
    names = {m: None for line in results.compared() for m in line.judgements if m != results.plan.metrics[0]}
    head = ["variant", *(cell for m in names for cell in (f"Δ {NAMES[m]}", "verdict"))]
    rows = [
        [
            line.name,
            *(cell for m in names for cell in (delta(line.judgements[m]), verdict(line.judgements[m]))),
        ]
        for line in results.compared()
    ]
    return head, rows if names else []


def _base_value(results: Results) -> str:
    compared = results.compared()
    return number(compared[0].judgements[results.plan.metrics[0]].base) if compared else "–"


def _cost(line: Line) -> list[str]:
    if line.cost is None:
        return ["–"] * 4
    speed, peak = line.cost.rows_per_s, line.cost.peak_mib
    return [
        si(line.cost.parameters),
        si(line.cost.flops_per_row),
        "–" if speed is None else f"{speed:,.0f}",
        "–" if peak is None else f"{peak:,.0f}",
    ]


def delta(judgement: Judgement) -> str:
    """A difference with its interval: `+0.0012 (-0.0003 to +0.0027)`."""
    if judgement.delta is None:
        return judgement.reason or "–"
    if judgement.low is None or judgement.high is None:
        return f"{judgement.delta:+.4f}"
    return f"{judgement.delta:+.4f} ({judgement.low:+.4f} to {judgement.high:+.4f})"


def p_value(judgement: Judgement) -> str:
    """The corrected p-value."""
    if judgement.p_holm is None:
        return "–"
    return "< 0.0001" if judgement.p_holm < 1e-4 else f"{judgement.p_holm:.4f}"


def verdict(judgement: Judgement) -> str:
    """The verdict, or why there is none."""
    return judgement.reason or judgement.verdict


def caveats(results: Results) -> list[str]:
    """What the intervals do not cover, each once."""
    found = (c for line in results.lines for j in line.judgements.values() for c in j.caveats)
    return list(dict.fromkeys(found))


def notes(results: Results) -> Iterator[str]:
    """Variants without a comparison, and why."""
    for s in results.stopped:
        yield (
            f"{s.variant}: stopped for the budget after {s.share:.0%} of its training, validation "
            f"{s.value:.4f} (the worst that went on: {s.kept:.4f})"
        )
    for name, why in results.failed.items():
        yield f"{name}: failed, {why}"


def changes(results: Results) -> list[tuple[str, str]]:
    """What each variant changes."""
    return [(line.name, line.changes) for line in results.lines if line.changes]


def markdown(results: Results, images: Mapping[str, bytes]) -> str:
    """The report as Markdown, beside its pictures."""
    parts = [f"# {title(results)}", _markdown_table(["", ""], [list(f) for f in results.facts.items()])]
    parts.append(_markdown_table(*table(results)))
    parts += [f"- {note}" for note in notes(results)]
    parts.append(_markdown_table(*others(results)))
    parts += [f"![{CAPTIONS[name]}]({name}.png)" for name in images]
    parts += ["## How to read it", "\n".join(f"- {line}" for line in (*READING, *caveats(results)))]
    changed = [[name, f"`{what}`"] for name, what in changes(results)]
    parts += ["## What the variants change", _markdown_table(["variant", "change"], changed)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(c.replace("|", r"\|") for c in row) + " |" for row in lines)
        if rows
        else ""
    )


def html(results: Results, images: Mapping[str, bytes]) -> str:
    """The report as one page; all text from outside is escaped by the template engine."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    figures = [
        {"name": name, "caption": CAPTIONS[name], "data": base64.b64encode(image).decode()}
        for name, image in images.items()
    ]
    values: dict[str, Any] = {
        "title": title(results),
        "facts": results.facts,
        "tables": [table(results), others(results)],
        "notes": list(notes(results)),
        "figures": figures,
        "reading": [*READING, *caveats(results)],
        "changes": changes(results),
    }
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(values)


def text(results: Results) -> str:
    """The main table for the terminal."""
    head, rows = table(results)
    shown = [[row[i] for i in range(6)] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in shown) for i in range(6)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in shown]
    return "\n".join([*lines, *(f"  {note}" for note in notes(results))])
