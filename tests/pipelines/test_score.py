"""`ctr score` on a trained run: a split, a file of score requests, HTTP until a signal; what it refuses."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli import main
from tests.ctr.serving.runs import LONGER
from tests.ctr.tiny_run import tiny_dataset, write_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with its predictions."""
    folder = tmp_path_factory.mktemp("score")
    path = folder / "run"
    config = write_config(
        folder / "run.yaml", tiny_dataset(folder), path, *LONGER, "train.epochs=1", "optimizer.ema_decay=0.9"
    )
    assert main(["train", str(config)]) == 0
    assert main(["predict", str(path)]) == 0
    return path


def score(*arguments: object) -> int:
    return main(["score", *(str(a) for a in arguments)])


def test_a_split_equals_predict(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scores.parquet"
    assert score(run, "--split", "test", "--out", out, "--micro-batch", 2) == 0
    found, want = pq.read_table(out), pq.read_table(run / "predictions" / "test.parquet")
    for name in ("row_id", "request_id", "user_id", "item_id", "time"):
        assert found[name].to_pylist() == want[name].to_pylist()
    np.testing.assert_allclose(found["logit"], want["logit"], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(found["score"], want["score"], atol=1e-5)
    text = capsys.readouterr().out
    assert f"wrote {len(want)} scores" in text and "misses" in text
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]


def test_a_file_of_score_requests(run: Path, tmp_path: Path) -> None:
    want = pq.read_table(run / "predictions" / "test.parquet")
    asked, row = want["request_id"][0].as_py(), want["row_id"][0].as_py()
    requests = {"request_id": [asked, asked], "row_ids": [[row, row + 1], [row]]}
    columns = {**requests, "features.price": [None, [[0.25]]]}
    pq.write_table(pa.table(columns), tmp_path / "requests.parquet")
    out = tmp_path / "scores.parquet"
    assert score(run, "--requests", tmp_path / "requests.parquet", "--out", out) == 0
    found = pq.read_table(out)
    assert found["question"].to_pylist() == [0, 0, 1] and found["candidate"].to_pylist() == [0, 1, 0]
    assert found["row_id"].to_pylist() == [row, row + 1, row]
    np.testing.assert_allclose(found["logit"][0].as_py(), want["logit"][0].as_py(), atol=1e-5)
    assert found["logit"][2].as_py() != found["logit"][0].as_py()  # of another price
    (tmp_path / "q.json").write_text(json.dumps([{"request_id": asked, "row_ids": [row, row + 1]}]))
    assert score(run, "--requests", tmp_path / "q.json", "--out", out) == 0
    assert pq.read_table(out)["logit"].to_pylist() == found["logit"].to_pylist()[:2]


@pytest.mark.parametrize(
    ("text", "says"), [("[", "a JSON list of score requests"), ("{}", "got dict; put it in")]
)
def test_a_json_file_that_is_no_list(
    text: str, says: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.json").write_text(text)
    assert score(run, "--requests", tmp_path / "q.json", "--out", tmp_path / "out") == 3
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--split", "test"], 2, "--out must name"),
        (["--serve", "--out", "x"], 2, "--out must name"),
        (["--split", "test", "--out", "x", "--append"], 2, "model.time_gaps is true"),
        (["--split", "test", "--out", "x", "--micro-batch", "0"], 2, "at least 1 candidate, got 0"),
        (["--split", "test", "--out", "x", "--cache-mb", "-1"], 2, "--cache-mb must be positive, got -1"),
        (["--requests", "gone", "--out", "x"], 3, "gone must be a Parquet file"),
        (["--serve", "--port", "70000"], 2, "--port must be a free port"),
    ],
)
def test_what_is_refused(
    options: list[str],
    code: int,
    says: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert score(run, *options) == code
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_row_leaves_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"request_id": [60, 60], "row_ids": [[1], []]}), tmp_path / "requests.parquet")
    assert score(run, "--requests", tmp_path / "requests.parquet", "--out", tmp_path / "out") == 3
    assert "row 1 is not valid" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["requests.parquet"]


@pytest.mark.slow
def test_serves_until_a_signal(run: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "score", str(run), "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        address = re.search(r"http://127\.0\.0\.1:\d+/score", process.stdout.readline())
        assert address is not None
        body = json.dumps({"request_id": 60, "row_ids": [1, 2]}).encode()
        asked = urllib.request.Request(address[0], body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert len(json.load(answer)["scores"]) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (143, -signal.SIGTERM)
        assert "cache: 0 hits, 0 extended, 1 misses" in process.stderr.read()
