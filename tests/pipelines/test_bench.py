"""`ctr bench` end to end at its smallest, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctr.bench.report import BEGIN, END
from ctr.bench.suites import DEFAULT, SUITES
from ctr.bench.suites.retrieval import ROUTES, UNIFIED
from pipelines.cli import main


def bench(*arguments: object) -> int:
    return main(["bench", "--quick", *(str(a) for a in arguments)])


def test_suites_give_tables_targets_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "benchmarks.md"
    page.write_text(f"# Benchmarks\n{BEGIN}\n{END}\n")
    suites = ("train", "unique", "optimizer")
    sizes = ("--rows-per-request", 1, 2, "--requests", 2)
    code = bench(*suites, *sizes, "--out", tmp_path / "out", "--write-docs")
    shown = capsys.readouterr()
    assert code == 0 and "results:" in shown.out and "train: LONGER" in shown.err
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [suite["suite"] for suite in found["suites"]] == list(suites)
    assert found["settings"]["rows per request"] == [1, 2] and found["calibration"]["matmul_fp32"] > 0
    speeds = found["suites"][0]["tables"]
    assert len(speeds) == 2 and all(row[1] > 0 and row[4] > 0 for row in speeds[0]["rows"])
    pictures = {p.name for p in (tmp_path / "docs" / "images" / "bench").iterdir()}
    assert pictures == {"train.png", "unique.png", "optimizer.png"}
    text = page.read_text()
    assert text.startswith(f"# Benchmarks\n{BEGIN}") and "images/bench/unique.png" in text and "MFU" in text
    assert (tmp_path / "out" / "bench.md").read_text().count("|---|") > 5


@pytest.mark.slow
def test_the_other_suites(tmp_path: Path) -> None:
    suites = ("ablate", "length", "candidates", "memory", "loader")
    assert bench(*suites, "--out", tmp_path) == 0
    found = {suite["suite"]: suite for suite in json.loads((tmp_path / "bench.json").read_text())["suites"]}
    assert tuple(found) == suites and all(suite["tables"] for suite in found.values())
    rows = found["ablate"]["tables"][0]["rows"]
    assert rows[-1][0] == "all of them" and all(0 <= row[2] < 1e-3 for row in rows)
    assert all(value > 0 for row in rows for value in row[3:])
    assert len(found["length"]["targets"]) == 5 and len(found["memory"]["targets"]) == 10


@pytest.mark.slow
def test_scoring_in_a_page_of_its_own(tmp_path: Path) -> None:
    page = tmp_path / "scoring.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    sizes = ("--lengths", 16, 32, "--candidates", 1, 3)
    assert bench("score", *sizes, "--out", tmp_path / "out", "--write-docs", "--page", page) == 0
    (suite,) = json.loads((tmp_path / "out" / "bench.json").read_text())["suites"]
    *scored, load = suite["tables"]
    assert [table["title"] for table in scored] == ["Histories of 16 events", "Histories of 32 events"]
    assert [row[1] for row in scored[0]["rows"]] == [1, 3] * 4 and len(load["rows"]) == 8
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text and "kept" in text


@pytest.mark.slow
def test_routes_to_a_long_history_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peak = {"peak": 3.0 * 2**20, "loaded": 2.0 * 2**20}  # a process for each route is what suite memory tests
    monkeypatch.setattr("ctr.bench.suites.retrieval.in_child", lambda config, **_: peak)
    sizes = ("--lengths", 16, 80, "--candidates", 1, 3)
    assert bench("retrieval", *sizes, "--out", tmp_path) == 0
    (suite,) = json.loads((tmp_path / "bench.json").read_text())["suites"]
    *timed, memory = suite["tables"]
    assert [table["title"] for table in timed] == ["Histories of 16 events", "Histories of 80 events"]
    for table in timed:
        names = [row[0] for row in table["rows"]]
        assert names == [*ROUTES, UNIFIED] == [row[0] for row in memory["rows"]]
        assert len(table["columns"]) == 7 and all(value > 0 for row in table["rows"] for value in row[1:])
        assert table["rows"][0][-1] == 1.0
    assert all(row[1:] == [3.0, 1.0] for row in memory["rows"])
    assert list(suite["charts"][0]["lines"]) == [*ROUTES, UNIFIED]


OTHER_LOG = Path(__file__).parents[2] / "pipelines/configs/simulator-hyformer.yaml"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["trian"], ["trian", "train", "curves"]),
        (["train", "--dataset", "gone"], ["gone", "ctr prepare"]),
        (["train", "--config", "gone.yaml"], ["gone.yaml"]),
        (["models", "--quick", "--config", str(OTHER_LOG)], ["'view'", "--dataset data/simulator-dataset"]),
        (["train", "--write-docs"], ["docs/benchmarks.md", "root of the checkout"]),
    ],
)
def test_refusals_name_the_remedy(
    arguments: list[str],
    names: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = bench(*arguments)
    text = capsys.readouterr().err
    said = [line for line in text.splitlines() if line != "calibration" and not line.startswith("models: ")]
    assert code == (3 if "--dataset" in arguments else 2) and said[0].startswith("error: ")
    assert all(name in text for name in names), text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [["--threads", "0"], ["--rounds", "x"], ["--rows-per-request"]])
def test_wrong_numbers_are_code_2(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench("train", *option)
    assert ended.value.code == 2 and "usage: ctr bench" in capsys.readouterr().err


def test_the_default_is_what_compares_in_minutes() -> None:
    others = {"models", "curves", "score", "retrieval", "profile"}
    assert set(DEFAULT) | others == set(SUITES) and not others & set(DEFAULT)
