"""`ctr generate`: train, resume, decode and compare, every strategy from one file, on a tiny data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.dataset import Dataset
from features.safe_yaml import apply_overrides, dump_yaml
from pipelines.cli import main
from tests.ctr.tiny_run import tiny_dataset, write_config

# The library warns of what it finds unusual in a configuration.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:transformers")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a click model, a generator and a smaller one."""
    root = tmp_path_factory.mktemp("generate")
    dataset = tiny_dataset(root)
    assert main(["train", str(write_config(root / "clicks.yaml", dataset, root / "clicks"))]) == 0
    for name, width in (("small", 8), ("run", 12)):
        config = write(root, f"run={root / name}", f"generator.d_model={width}")
        assert main(["generate", "train", str(config)]) == 0
    return root


def write(root: Path, *overrides: str) -> Path:
    """The configuration file, changed."""
    path = root / "generate.yaml"
    path.write_text(dump_yaml(apply_overrides(settings(root), list(overrides))))
    return path


def settings(root: Path) -> dict[str, Any]:
    small = str(root / "small")
    return {
        "dataset": str(root / "dataset"),
        "run": str(root / "run"),
        "ids": {"run": str(root / "clicks"), "codes": [6, 4]},
        "generator": {"domain": "view", "targets": "shown", "d_model": 12, "layers": 1, "heads": 2},
        "optimizer": {"warmup_steps": 3, "ema_decay": 0.9},
        "loader": {"batch_rows": 12, "window": 16},
        "train": {"epochs": 2, "device": "cpu", "metric": "ne"},
        "tracking": {"uri": None, "log_every": 1},
        "generation": {
            "requests": "all",
            "limit": 7,
            "batch_requests": 5,
            "items": 4,
            "ks": [2, 4],
            "ranker": str(root / "clicks"),
            "ranker_blind": ["price"],
        },
        "strategies": {
            "beam": {"width": 6},
            "greedy": {"mode": "greedy", "width": 1, "horizon": 3},
            "speculative": {"mode": "greedy", "width": 1, "horizon": 3, "draft": small},
            "sample": {"mode": "sample", "width": 6, "top_k": 5, "top_p": 0.9, "temperature": 0.8},
            "likelihood": {"mode": "sample", "width": 6, "epsilon": 0.01, "order": "likelihood"},
            "vote": {"mode": "sample", "width": 6, "order": "vote"},
            "mbr": {"mode": "sample", "width": 6, "order": "mbr"},
            "diverse": {"width": 6, "diversity": {"groups": 3, "penalty": 1.0}},
            "contrastive": {"width": 6, "contrastive": {"amateur": small}},
            "fudge": {"width": 6, "reward": {"when": "tokens"}},
            "reward": {"width": 6, "reward": {"weight": 0.5}},
            "ensemble": {"width": 6, "ensemble": [small]},
        },
    }


def test_training_learns_and_resumes(place: Path) -> None:
    journal = place / "run" / "journal.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < losses[0] and not any("ne" in row for row in rows if row["kind"] == "train")
    assert all(row["ne"] > 0 for row in rows if row["kind"] == "valid")
    assert main(["generate", "train", str(write(place))]) == 0
    again = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [row for row in again if row["kind"] == "train"] == [row for row in rows if row["kind"] == "train"]


def test_every_strategy_from_one_file(place: Path) -> None:
    assert main(["generate", "evaluate", str(write(place))]) == 0
    table = json.loads((place / "run" / "report" / "generation.json").read_text())
    names = list(settings(place)["strategies"])
    assert list(table["strategies"]) == ["popularity", "item-kNN", *names] and table["requests"] == 7
    data = Dataset(place / "dataset").split("test")
    known = dict(
        zip(data.requests["request_id"].to_numpy(), data.requests["user_id"].to_numpy(), strict=True)
    )
    for name in names:
        items = pq.read_table(place / "run" / "predictions" / f"test-items-{name}.parquet")
        rows = items.to_pylist()
        assert rows and all(known[row["request_id"]] == row["user_id"] for row in rows)
        assert all(2 <= row["item"] < 200 and 0 <= row["click"] < 1 for row in rows)
        for request in set(items["request_id"].to_pylist()):
            own = [row for row in rows if row["request_id"] == request]
            assert [row["rank"] for row in own] == list(range(1, len(own) + 1)) and len(own) <= 4
            assert len({row["item"] for row in own}) == len(own)
            if name not in ("greedy", "speculative"):
                assert (np.diff([row["score"] for row in own]) <= 1e-6).all() or name in ("sample", "diverse")
    greedy, drafted = (table["strategies"][name] for name in ("greedy", "speculative"))
    assert {k: v for k, v in greedy.items() if k[:2] != "ms"} == {
        k: v for k, v in drafted.items() if k[:2] != "ms"
    }
    report = place / "run" / "report"
    assert "| beam |" in (report / "generation.md").read_text() and (report / "generation.png").is_file()
    journal = [json.loads(line) for line in (place / "run" / "journal.jsonl").read_text().splitlines()]
    (tracked,) = [row for row in journal if row["kind"] == "generate/beam"]
    assert tracked["recall_at_4"] == table["strategies"]["beam"]["recall@4"]
    assert tracked["wall"]["ms_per_request"] > 0 and journal[-2]["path"] == "report"
    shutil.copytree(report, place / "again" / "report")
    runs = ["--runs", str(place / "run"), str(place / "again")]
    out = ["--out", str(place / "both")]
    assert main(["generate", "combine", str(write(place)), *runs, *out]) == 0
    assert "| popularity |" in (place / "both" / "generation.md").read_text()
    assert main(["generate", "combine", str(write(place)), *runs]) == 2
    other = write(place, "generation.split=valid")
    assert main(["generate", "combine", str(other), *runs, *out]) == 3  # not what was evaluated


def test_one_strategy_and_messages(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(place, "strategy=vote")
    assert main(["generate", "decode", str(config)]) == 0
    assert "| vote |" in capsys.readouterr().out
    refused = [
        ("strategy=other", "strategy must be one of"),
        ("generator.domain=clicks", "must name a field of events"),
        ("model.d_model=3", "model, lora and init belong to click models"),
        (f"run={place / 'clicks'}", "must be the run of a generator"),
    ]
    for override, message in refused:
        stage = "train" if "domain" in override else "decode"
        other = [f"run={place / 'new'}"] if stage == "train" else []
        assert main(["generate", stage, str(write(place, override, *other))]) == 2
        assert message in capsys.readouterr().err
    assert not (place / "new").exists()
