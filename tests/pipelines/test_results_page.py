"""The tables of docs/results.md are what their lines say; a run's own line suffices to train it again."""

from __future__ import annotations

import re
import shutil
from decimal import Decimal
from pathlib import Path

import pytest

from ctr.report.result_line import Figure, ResultLine, append_line, read_lines
from features.errors import ConfigError
from features.safe_yaml import dump_yaml
from pipelines.cli import main as ctr
from pipelines.results_page import DOCS, END, PAGES, main, models, number, render_page, signed
from tests.ctr.tiny_run import tiny_dataset, write_config


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the pages and their lines that a test may spoil."""
    for page in PAGES:
        shutil.copy(page, tmp_path)
    shutil.copytree(DOCS / "results", tmp_path / "results")
    return tmp_path / "results.md"


def test_the_page_is_what_its_lines_say() -> None:
    assert main(["--check"]) == 0


def test_every_file_of_lines_has_a_table() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    named = [file for text in texts for file in re.findall(r"<!-- results: \w+ (\S+) -->", text)]
    assert sorted(named) == sorted(str(f.relative_to(DOCS)) for f in (DOCS / "results").rglob("*.jsonl"))


def test_a_number_changed_in_the_page_is_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = copy.read_text(encoding="utf-8")
    copy.write_text(text.replace("| 0.8060 |", "| 0.8061 |", 1), encoding="utf-8")
    assert main(["--check", "--page", str(copy)]) == 1
    assert "--write" in capsys.readouterr().err
    assert main(["--write", "--page", str(copy)]) == 0
    assert copy.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("file", sorted((DOCS / "results").rglob("*.jsonl")), ids=lambda f: f.stem)
def test_a_number_changed_in_a_line_is_found(copy: Path, file: Path) -> None:
    lines = copy.parent / file.relative_to(DOCS)
    text = lines.read_text(encoding="utf-8")
    shown = re.search(r'"value": 0\.(\d)', text)  # the last digits of a line may be more than the page shows
    assert shown is not None
    other = "3" if shown[1] != "3" else "4"
    lines.write_text(text[: shown.start(1)] + other + text[shown.end(1) :], encoding="utf-8")
    assert main(["--check", "--page", *(str(copy.parent / page.name) for page in PAGES)]) == 1


def line(model: str, seed: int, auc: str) -> ResultLine:
    figure = Figure(value=Decimal(auc), low=Decimal("0.5"), high=Decimal("0.9"))
    return ResultLine(dataset="d", split="test", model=model, seeds=[seed], metrics={"auc": figure})


def test_single_seeds_of_a_model_become_one_row() -> None:
    rows = models([line("a", 1, "0.70004"), line("a", 2, "0.7100"), line("b", 1, "0.65")]).splitlines()
    assert rows[2:] == [
        "| AUC | a | 2 | 0.7050 | 0.7000 | 0.7100 | 0.5 | 0.9 |",
        "| AUC | b | 1 | 0.65 | – | – | 0.5 | 0.9 |",
    ]


def test_numbers_keep_their_digits_up_to_four() -> None:
    shown = [number(Decimal(t)) for t in ("0.7200", "0.72004", "0.5", "1204")]
    assert shown == ["0.7200", "0.7200", "0.5", "1204"]
    assert [signed(Decimal(t)) for t in ("0.1", "-0.1", "-0.0000")] == ["+0.1", "-0.1", "-0.0000"]
    assert number(None) == signed(None) == "–"


@pytest.mark.parametrize("marker", ["pies a.jsonl", "models missing.jsonl"])
def test_a_marker_that_names_nothing_is_refused(tmp_path: Path, marker: str) -> None:
    append_line(tmp_path / "a.jsonl", line("a", 1, "0.7"))
    with pytest.raises(ConfigError, match="a marker must name a layout"):
        render_page(f"<!-- results: {marker} -->\n{END}", tmp_path)


@pytest.mark.slow
def test_the_line_of_a_run_suffices_to_train_it_again(tmp_path: Path) -> None:
    dataset, file = tiny_dataset(tmp_path), tmp_path / "lines.jsonl"
    config, run, again = tmp_path / "run.yaml", tmp_path / "run", tmp_path / "again"
    write_config(config, dataset, run)
    assert ctr(["train", str(config)]) == 0 and ctr(["evaluate", str(run), "--line", str(file)]) == 0
    settings = read_lines(file)[0].settings
    assert settings is not None
    config.write_text(dump_yaml({**settings, "run": str(again)}))
    assert ctr(["train", str(config)]) == 0 and ctr(["evaluate", str(again), "--line", str(file)]) == 0
    first, second = read_lines(file)
    assert first.metrics == second.metrics and first.dataset_digest == second.dataset_digest
    assert first.rows and first.dense_parameters and first.seconds is not None and first.hardware


def test_a_line_is_of_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctr(["evaluate", "--compare", "a", "b", "--line", "x.jsonl"]) == 2
    assert "--line" in capsys.readouterr().err
