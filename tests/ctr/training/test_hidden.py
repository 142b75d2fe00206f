"""Hidden ID columns: what is hidden, what a memorised column looks like, and that all ranks find the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ctr.batch import Batch
from ctr.build import build_state, hidden_columns, open_dataset, scoring_loader
from ctr.distributed.world import World
from ctr.loader.collate import ColumnKey, batch_columns
from ctr.runs.journal import read_rows
from ctr.training.hidden import (
    UNKNOWN,
    ColumnGain,
    Gain,
    describe_gains,
    gain_rows,
    hide,
)
from pipelines.train import train
from tests.ctr import rank_jobs
from tests.ctr.batches import make_batch
from tests.ctr.ranks import run_ranks
from tests.ctr.tiny_run import tiny_config, tiny_dataset

KEYS: list[ColumnKey] = [("request", "interests"), ("candidate", "item"), ("event.view", "item")]
TABLE = {"interests": "tag", "item": "item"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


def values(batch: Batch, key: ColumnKey, table: str) -> torch.Tensor:
    return batch.unique_ids[table][batch_columns(batch)[key].inverse_indices]


@pytest.mark.parametrize("known", [False, True], ids=["the unknown row is new", "it is asked for already"])
@pytest.mark.parametrize("key", KEYS, ids=" ".join)
def test_one_column_becomes_unknown_and_nothing_else(key: ColumnKey, known: bool) -> None:
    batch, table = make_batch(), TABLE[key[1]]
    ids = torch.tensor([5, 0, 9, 1 if known else 7, 20, 12, 30])
    batch = replace(batch, unique_ids={**batch.unique_ids, table: ids})
    hidden = hide(batch, key, table)
    was, now = values(batch, key, table), values(hidden, key, table)
    assert torch.equal(now, torch.where(was == 0, 0, UNKNOWN)) and (was > 1).any() and (was == 0).any()
    assert len(hidden.unique_ids[table]) == len(hidden.unique_ids[table].unique()) == len(ids) + (not known)
    for other, column in batch_columns(batch).items():
        if other != key:
            assert batch_columns(hidden)[other] is column
    assert batch_columns(hidden)[key].offsets is batch_columns(batch)[key].offsets
    assert hidden.unique_ids.keys() == batch.unique_ids.keys()


def gain(train: float, valid: float, error: float = 0.001) -> ColumnGain:
    return ColumnGain("candidate item", "item", Gain(train, error), Gain(valid, error))


def test_memorised_is_what_training_gains_and_validation_does_not() -> None:
    assert gain(0.0106, -0.0001).memorised
    assert not gain(0.0106, -0.0001, error=0.004).memorised  # it may be chance
    assert not gain(0.0106, 0.0060).memorised  # it tells of new rows too
    assert not gain(-0.0106, -0.0200).memorised


def test_the_log_names_the_column_the_figures_and_the_remedy() -> None:
    found = [gain(0.0106, -0.0001), replace(gain(0.002, 0.002), column="view item")]
    told = "candidate item: +0.0106 on training, -0.0001 on validation: memorised"
    assert describe_gains(found, []) == [f"{told}; see embedding.restart"]
    assert describe_gains(found, ["item"]) == [f"{told}; drawn anew at the next epoch"]
    assert describe_gains(found[1:], []) == [
        "no ID column is memorised; the most told view item: +0.0020 on training, +0.0020 on validation"
    ]
    assert describe_gains([], []) == []
    figures = gain_rows(found)["parts"][0]
    assert figures["name"] == ["candidate item"] and figures["figures"]["memorised"] == 1


class ReadsItems(nn.Module):
    """Its logit is the first number of the candidate's item row."""

    def forward(self, batch: Batch, rows: dict[str, torch.Tensor]) -> torch.Tensor:
        return rows["item"][batch.candidate_ids["item"].inverse_indices, 0]


def test_a_table_that_holds_the_labels_is_found(dataset: Path, tmp_path: Path) -> None:
    """Item rows that hold the labels of the training rows tell them there, and nothing in validation."""
    config = tiny_config(dataset, tmp_path / "run")
    opened = open_dataset(config)
    state = build_state(config, opened.manifest, torch.device("cpu"))
    state.model = ReadsItems()
    weight = state.tables.state()["item.weight"]
    for batch in scoring_loader(config, opened, "train").iterate(0):
        items = values(batch, ("candidate", "item"), "item")
        weight[items, 0] = 2 * batch.label - 1
    found = hidden_columns(config, opened)
    assert found is not None
    gains = {gain.column: gain for gain in found.measure(state)}
    assert gains["candidate item"].memorised and gains["candidate item"].train.auc > 0.3
    others = gains.keys() - {"candidate item"}
    assert {"request user", "view item", "buy item", "candidate tags"} <= others
    assert all(gains[name].train.auc == gains[name].valid.auc == 0 for name in others)


def test_it_can_be_left_out_and_changes_nothing(dataset: Path, tmp_path: Path) -> None:
    rows, files = {}, {}
    for name, options in {"with": (), "without": ("train.hidden_rows=0",)}.items():
        train(tiny_config(dataset, tmp_path / name, *options))
        found = read_rows(tmp_path / name / "journal.jsonl")
        rows[name] = [
            {k: v for k, v in row.items() if k != "wall"}
            for row in found
            if row["kind"] in ("train", "valid")
        ]
        kinds = {row["kind"] for row in found}
        assert ("hidden" in kinds) == (name == "with")
        weights = sorted((tmp_path / name / "checkpoints").glob("*/*.safetensors"))
        files[name] = [path.read_bytes() for path in weights]
    assert rows["with"] == rows["without"] and files["with"] == files["without"]


def test_a_sample_is_a_few_whole_requests(dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(dataset, tmp_path / "run", "train.hidden_rows=20")
    opened = open_dataset(config)
    found = hidden_columns(config, opened)
    assert found is not None
    for part, source in found.samples.items():
        sampled = list(source.iterate(0))
        rows = torch.cat([batch.row_id for batch in sampled])
        whole = opened.split(part)
        offsets, requests = whole.row_offsets, torch.cat([batch.request_id for batch in sampled])
        assert 15 <= len(rows) <= 25 and len(requests) < whole.requests.num_rows
        numbers = dict(zip(whole.requests["request_id"].to_pylist(), range(len(offsets)), strict=False))
        wanted = [r for request in requests.tolist() for r in range(*offsets[numbers[request] :][:2])]
        assert whole.impressions["row_id"].take(wanted).to_pylist() == rows.tolist()


@pytest.mark.slow
def test_all_ranks_find_what_one_finds(dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(dataset, tmp_path / "run")
    opened = open_dataset(config)
    alone = hidden_columns(config, opened)
    assert alone is not None
    expected = alone.measure(build_state(config, opened.manifest, torch.device("cpu"), world=World.single()))
    found = run_ranks(2, rank_jobs.hidden_gains, dataset, tmp_path / "run")
    assert [ending.error for ending in found] == [None, None]
    for ending in found:
        assert [str(one) for one in ending.result] == [str(one) for one in expected]
        assert [one.train for one in ending.result] == [one.train for one in expected]
