"""A run scores another data set exactly as if its own vocabularies had encoded it, or refuses it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ctr.errors import CheckpointError
from ctr.runs.directory import RunDir
from pipelines.cli import main
from pipelines.evaluate import evaluate
from pipelines.predict import predict
from pipelines.runs import open_run
from pipelines.train import train
from tests.ctr.transfer.data_sets import CUT, WHOLE, config_of, renumbered, shop

NGRAM = "model.ngram={fields: [view.item], rows: 40}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets, and a run on `own`, whose vocabularies are cut short."""
    root = tmp_path_factory.mktemp("read")
    renumbered(shop(root, "own", **CUT), root / "shuffled")
    shop(root, "grown", **WHOLE)
    renumbered(root / "grown", root / "grown-shuffled")
    train(config_of(root / "own", root / "run", NGRAM))
    return root


def predictions(root: Path, dataset: str | None) -> tuple[Path, pl.DataFrame]:
    with RunDir.open(root / "run", create=False) as run_dir:
        opened = open_run(run_dir, dataset=None if dataset is None else root / dataset)
        path, _ = predict(run_dir, opened, "train")
    return path, pl.read_parquet(path)


@pytest.mark.fault(46)
@pytest.mark.parametrize("dataset", ["grown", "shuffled", "grown-shuffled"])
def test_scores_are_those_of_the_own_vocabularies_to_the_bit(root: Path, dataset: str) -> None:
    own, wanted = predictions(root, None)
    path, found = predictions(root, dataset)
    assert found.equals(wanted) and path.name == "train.parquet"
    assert path.parent.parent == own.parent == root / "run" / "predictions"
    assert path.parent.name.startswith(f"{dataset}-")


def test_new_values_are_many_and_share_three_unknown_rows(root: Path) -> None:
    opened = open_run(RunDir(root / "run"), dataset=root / "grown")
    rows = opened.dataset.row_maps["item"]
    assert set(rows[16:].tolist()) == {1, 2, 3}
    assert opened.dataset.manifest.tables["item"].rows == 16 < opened.prepared.manifest.tables["item"].rows
    assert opened.state.tables.rows["item"] == 16


def test_serving_reads_it_alike(root: Path) -> None:
    wanted = predictions(root, "grown")[1]
    out = root / "scores.parquet"
    command = ["score", str(root / "run"), "--split", "train", "--dataset", str(root / "grown")]
    assert main([*command, "--out", str(out)]) == 0
    found = pl.read_parquet(out)
    assert found["row_id"].to_list() == wanted["row_id"].to_list()
    assert found["logit"].to_list() == pytest.approx(wanted["logit"].to_list(), abs=1e-5)


def test_an_evaluation_stands_beside_that_of_the_own_data(root: Path) -> None:
    own = evaluate(root / "run", split="train")
    other = evaluate(root / "run", split="train", dataset=root / "grown", baselines=["logistic"])
    assert own.evaluation.overall.metrics["auc"] == other.evaluation.overall.metrics["auc"]
    assert other.report.parent.parent == own.report.parent and own.report.is_file()
    kinds = {line.split('"')[3] for line in (root / "run" / "journal.jsonl").read_text().splitlines()}
    assert {"train", f"train.{other.report.parent.name}"} <= kinds


def test_a_data_set_that_means_something_else_is_refused(root: Path, tmp_path: Path) -> None:
    split = {"valid": 0.3, "test": 0.3}
    swapped = {"all": ["device", "item", "tags", "price"]}
    cases = {
        "price was fitted to other values": shop(tmp_path, "scaled", **CUT, split=split),
        "tokens.all: expected .*, found ": shop(tmp_path, "swapped", **CUT, tokens=swapped),
        "tags is defined otherwise": shop(tmp_path, "defined", **CUT, features__tags__max_values=2),
        "table item: expected 16 rows by vocabulary, found 16 rows by hash": shop(
            tmp_path, "hashed", **{**CUT, "tables__item": {"encode": "hash", "rows": 15}}
        ),
        "table item: it lacks 2 of the 12 values": shop(
            tmp_path, "smaller", **{**CUT, "tables__item": {"max_size": 10, "oov_rows": 3}}
        ),
        "table item: it has 1 rows for unknown values instead of 3": shop(
            tmp_path, "unknown", **{**CUT, "tables__item": {"max_size": 14}}
        ),
    }
    for reason, dataset in cases.items():
        with pytest.raises(CheckpointError, match=reason):
            open_run(RunDir(root / "run"), dataset=dataset)


def test_another_data_set_has_to_be_named(root: Path, tmp_path: Path) -> None:
    moved = (root / "own").rename(tmp_path / "own")
    (root / "grown").rename(root / "own")
    try:
        with pytest.raises(CheckpointError, match=r"(?s)belongs to another run.*dataset: expected"):
            open_run(RunDir(root / "run"))
        assert open_run(RunDir(root / "run"), dataset=root / "own").dataset.row_maps
    finally:
        (root / "own").rename(root / "grown")
        moved.rename(root / "own")
