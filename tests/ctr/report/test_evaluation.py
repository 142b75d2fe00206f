"""The report: whole, self-contained, escaped, and honest about what is undefined."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ctr.metrics import Evaluation, MetricValue, evaluate_table
from ctr.report.curves import precision_recall
from ctr.report.evaluation import format_metrics_table, render, write_report
from ctr.report.pictures import draw_all
from ctr.report.training import MAX_POINTS, _series, hidden_columns, training

NASTY = '<script>alert("x")</script> & $x$'
PICTURES = ("roc", "precision_recall", "reliability", "scores", "training", "hidden", "importance", "slices")
PNG = b"\x89PNG\r\n\x1a\n"
HISTORY = [
    *({"kind": "train", "step": k, "loss": 1 / (k + 1), "ne": 1.0} for k in range(60)),
    {"kind": "valid", "step": 30, "auc": 0.61},
    {"kind": "valid", "step": 60, "auc": None},
    {"kind": "save", "step": 60},
    *(
        {
            "kind": "hidden",
            "step": step,
            "split": "columns",
            "parts": [{"name": [NASTY], "figures": {"train": 0.01 * step, "valid": -0.001}}],
        }
        for step in (30, 60)
    ),
]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    n = 500
    score = rng.random(n)
    name = np.array([NASTY, "home"])[np.arange(n) % 2]
    label = ((rng.random(n) < score) & (name == "home")).astype(int)
    table = {"label": label, "score": score, "user_id": np.arange(n) // 10, "slice_domain": name}
    return evaluate_table(table, draws=20)


class Page(HTMLParser):
    """Collects tags and checks that they close in order."""

    void = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, evaluation: Evaluation) -> Path:
    """One report with everything in it, drawn once."""
    return write_report(
        tmp_path_factory.mktemp("run") / "report",
        evaluation=evaluation,
        history=HISTORY,
        title=f"title {NASTY}",
        context={
            "facts": {NASTY: NASTY},
            "config": {"model": {NASTY: NASTY}, "seed": 0},
            "baselines": [
                {
                    "name": "logistic regression",
                    "auc": MetricValue(value=0.71, low=0.7, high=0.72),
                    "gauc": MetricValue(value=0.66, low=0.6, high=0.7),
                    "ne": 0.9,
                },
                {"name": NASTY, "auc": 0.7, "note": NASTY},
            ],
            "importance": {NASTY: MetricValue(value=0.02, low=0.01, high=0.03), "b": MetricValue(value=None)},
        },
    )


def test_the_page_needs_nothing_else(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    sources = [attributes["src"] or "" for tag, attributes in Page(text).tags if tag == "img"]
    images = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources]
    assert images == [(page.parent / f"{name}.png").read_bytes() for name in PICTURES]
    assert all(image.startswith(PNG) for image in images)
    assert "http" not in re.sub(r"base64,[^\"]*|http-equiv", "", text)
    expected = {"index.html", "metrics.json", *(f"{name}.png" for name in PICTURES)}
    assert {path.name for path in page.parent.iterdir()} == expected


def test_text_from_outside_is_escaped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    # Title twice; name and value of a fact, of a configuration line and of a baseline; one slice.
    assert text.count("&lt;script&gt;") == 2 + 2 + 2 + 2 + 1


def test_metrics_json_holds_null_and_reason(page: Path) -> None:
    metrics = json.loads((page.parent / "metrics.json").read_text(encoding="utf-8"))
    planted = metrics["slices"]["domain"][NASTY]["metrics"]["auc"]
    assert planted["value"] is None and planted["reason"] in page.read_text(encoding="utf-8")


def test_baselines_stand_beside_the_run(page: Path, evaluation: Evaluation) -> None:
    text = page.read_text(encoding="utf-8")
    head = re.findall(r"<th>(.*?)</th>", text.split("<h2>Comparison</h2>")[1].split("</thead>")[0])
    assert head == ["model", "AUC", "GAUC", "NE"]
    assert "<td>0.7100 (0.7000 to 0.7200)</td><td>0.6600 (0.6000 to 0.7000)</td><td>0.9000</td>" in text
    assert f"<td>this run</td><td>{evaluation.overall.metrics['auc'].value:.4f} (" in text
    bare = render(evaluation, images={}, title="bare", context={})
    assert not any(word in bare for word in ("Comparison", "Configuration", "Facts", "<img"))


def test_an_older_report_is_replaced(tmp_path: Path, evaluation: Evaluation) -> None:
    for name in ("training.png", "index.html", ".tmp-roc.png"):
        (tmp_path / name).write_text("old")
    write_report(tmp_path, evaluation=evaluation, history=[], title="again", context={})
    assert not (tmp_path / "training.png").exists() and not list(tmp_path.glob(".tmp-*"))
    assert "again" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_undefined_and_empty_tables_are_drawn_and_matplotlib_stays_as_it_was() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    for rows in (5, 0):
        result = evaluate_table({"label": np.zeros(rows), "score": np.full(rows, 0.5)})
        assert set(draw_all(result, [])) == {"roc", "precision_recall", "reliability", "scores"}
    assert dict(mpl.rcParams) == before


def test_long_histories_are_averaged_down() -> None:
    rows = [{"kind": "train", "step": step, "loss": float(step)} for step in range(4 * MAX_POINTS)]
    points = _series([*rows, {"kind": "train", "step": 9, "loss": float("nan")}], "train", "loss")
    assert len(points) == MAX_POINTS and points[0].tolist() == [1.5, 1.5]


def test_the_terminal_table_is_aligned_and_complete(evaluation: Evaluation) -> None:
    text = format_metrics_table(evaluation)
    auc = evaluation.overall.metrics["auc"]
    assert re.search(
        rf"^AUC +{auc.value:.4f} \({auc.low:.4f} to {auc.high:.4f}\) +user bootstrap$", text, re.M
    )
    assert "50 of 50 groups" in text or re.search(r"GAUC .* \d+ of 50 groups", text)
    assert re.search(r"^Query AUC +– +no request ids were given$", text, re.M)
    slices = text.split("-----\n")[1].splitlines()
    assert len(slices) == 2 and slices[0].index("250 ") == slices[1].index("250 ")


def test_a_value_of_the_log_cannot_write_lines_of_the_table() -> None:
    values = np.array(["x" * 300, "a\nAUC          0.9999"] * 10)
    rows = {"label": np.arange(20) % 3 == 0, "score": np.linspace(0.1, 0.9, 20), "slice_kind": values}
    table = format_metrics_table(evaluate_table(rows)).split("-----\n")[1].splitlines()
    assert [line[:24] for line in table] == ["kind = a\\nAUC          0", "kind = xxxxxxxxxxxxxxxxx"]
    assert max(map(len, table)) < 140 and "…" in table[1]


def test_validation_loss_stands_beside_training_loss() -> None:
    """In one panel; journals that lack one of them are drawn with the other."""
    train = [{"kind": "train", "step": step, "loss": 1 / step} for step in range(1, 50)]
    valid = [{"kind": "valid", "step": step, "log_loss": 2 / step, "auc": 0.5} for step in (10, 20)]
    for history, panels, lines in ((train + valid, 2, 3), (train, 1, 2), (valid, 2, 1)):
        figure = training(history)
        assert figure is not None and len(figure.axes) == panels
        (loss, *_) = figure.axes
        assert loss.get_title() == "Loss" and len(loss.lines) == lines
        names = [text.get_text() for text in loss.get_legend().get_texts()]
        assert names == [n for n, part in (("training", train), ("validation", valid)) if part[0] in history]
    drawn = training(train + valid)
    assert drawn is not None
    assert drawn.axes[0].lines[-1].get_xydata().tolist() == [[10, 0.2], [20, 0.1]]
    assert training([{"kind": "save", "step": 1}]) is None


def test_what_columns_tell_in_training_stands_beside_what_they_tell_in_validation() -> None:
    assert hidden_columns([{"kind": "valid", "step": 1, "auc": 0.5}]) is None
    figure = hidden_columns(HISTORY)
    assert figure is not None
    zero, train, valid = figure.axes[0].lines
    assert train.get_xydata().tolist() == [[30, 0.3], [60, 0.6]]
    assert valid.get_xydata().tolist() == [[30, -0.001], [60, -0.001]] and valid.get_linestyle() == "--"
    assert list(zero.get_ydata()) == [0, 0]


def test_precision_and_recall_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_curve

    random = np.random.default_rng(3)
    label, score = random.integers(0, 2, 300), random.integers(0, 40, 300) / 40  # with ties
    curves = evaluate_table({"label": label, "score": score}, draws=0).overall.curves
    (line,) = [x for x in precision_recall(curves).axes[0].lines if len(x.get_xdata()) > 2]
    precision, recall, _ = precision_recall_curve(label, score)
    expected = {(round(r, 9), round(p, 9)) for r, p in zip(recall, precision, strict=True) if r > 0}
    assert {(round(r, 9), round(p, 9)) for r, p in line.get_xydata().tolist() if r > 0} == expected
