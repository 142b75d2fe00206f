"""Hostile texts in keys, values and names of a log, through every command: no terminal or page obeys them.

Row 45 of the faults. What a command prints and every Markdown, HTML and CSV file that it writes holds control
characters escaped. Files of data (Parquet, Arrow, JSON) keep the values as they are.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from features.safe_yaml import dump_yaml
from pipelines.cli import main
from tests.ctr.serving.runs import LONGER
from tests.ctr.tiny_run import write_config
from tests.features.small_log import SHOP_SPEC, changed, shop_tables, write_tables

EVIL = '\x1b[2J\x9b1m\x07\u202e\u2028|$x^$ <script>alert("1")</script> [a](http://b)\r\n# ok\t`'
PRICE = f"pri{EVIL}ce"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
SPEC = changed(
    SHOP_SPEC,
    features__price={"columns": [PRICE]},
    slices={"device": "device"},
    counters={"item": {"by": ["item", "device"]}},
    features__counts={"columns": ["count.item.*"]},
    tokens={"all": ["item", "device", "tags", "price", "counts"]},
)


def hostile(text: str) -> str:
    return f"{text}{EVIL}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log: users, items, requests, categories, tags and a column's name."""
    folder = tmp_path_factory.mktemp("evil")
    tables = shop_tables(80)
    keys = pl.col("user", "item").map_elements(hostile, return_dtype=pl.String)
    shown = tables["shown"].with_columns(
        keys,
        pl.col("request", "device").map_elements(hostile, return_dtype=pl.String),
        pl.col("tags").list.eval(pl.element() + EVIL),
    )
    events = tables["events"].with_columns(keys)
    write_tables(folder, {"shown": shown.rename({"price": PRICE}), "events": events})
    (folder / "spec.yaml").write_text(dump_yaml(SPEC))
    write_config(folder / "run.yaml", folder / "data", folder / "run", *LONGER, "train.epochs=1")
    return folder


def ctr(folder: Path, line: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    """What a command prints; `@` stands for the folder."""
    assert main([part.replace("@", f"{folder}/") for part in line.split()]) == code
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert not CONTROLS.search(text), (line, CONTROLS.findall(text))
    return text


@pytest.mark.fault(45)
@pytest.mark.slow
def test_no_control_character_reaches_a_terminal_or_a_page(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in (
        "prepare --spec @spec.yaml --out @data",
        "doctor @data",
        "train @run.yaml",
        "evaluate @run --baseline logistic --importance 50",
        "predict @run",
        "score @run --split test --out @scores.parquet",
        "evaluate --compare a|b=@run <i>[x](y)=@run --out @compared",
        "counters @run --at 2023-11-15 --out @counters.csv --source @",
        "counters @run --at 2023-11-15 --out @counters.parquet --source @",
    ):
        ctr(folder, line, capsys)
    request = {"user": hostile("u1"), "time": "2023-11-15T00:00:00Z", "items": [hostile("i1"), EVIL]}
    request["columns"] = {"tags": [[EVIL], []], "weights": [[1.0], []], PRICE: [1.0, None]}
    (folder / "q.json").write_text(json.dumps([{**request, "request_columns": {"device": EVIL}}]))
    ctr(folder, "score @run --requests @q.json --out @s.parquet --counters @counters.parquet", capsys)
    found = pq.read_table(folder / "s.parquet")
    assert found["unknown"].to_pylist() == [["device", "tags"], ["device", "item_key", "item"]]
    assert found["user_key"].to_pylist() == [hostile("u1")] * 2  # a file of data: as it is
    (folder / "q.json").write_text(json.dumps([{**request, EVIL: 1, "columns": {EVIL: [1, 2]}}]))
    assert "Extra inputs" in ctr(folder, "score @run --requests @q.json --out @s.parquet", capsys, code=3)


@pytest.mark.fault(45)
@pytest.mark.slow
def test_every_page_that_was_written_is_harmless(folder: Path) -> None:
    pages = [p for p in folder.rglob("*") if p.suffix in (".html", ".md", ".csv")]
    assert {p.suffix for p in pages} == {".html", ".md", ".csv"}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not CONTROLS.search(text), (page, CONTROLS.findall(text))
        if page.suffix == ".html":
            assert "<script" not in text and "Content-Security-Policy" in text and "&lt;script" in text
            assert "default-src 'none'" in text and not re.search(r"\son\w+=", text)
        if page.suffix == ".md":
            assert "<script" not in text and not re.search(r"(?<![\\!])\[[^\]]*\]\(", text)
        if page.suffix == ".csv":
            assert not re.search(r'^"?[=+@\-]', text, re.MULTILINE)


@pytest.mark.fault(45)
def test_arguments_and_paths_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["train", "a", f"--{EVIL}"], [f"x{EVIL}"], ["score", EVIL, "--split", EVIL]):
        with pytest.raises(SystemExit):
            main(arguments)
    assert main(["train", EVIL.replace("/", "")]) == 2
    captured = capsys.readouterr()
    assert captured.err and not CONTROLS.search(captured.out + captured.err)
