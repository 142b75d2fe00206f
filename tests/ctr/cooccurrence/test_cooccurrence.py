"""A log whose histories number the candidate's categories in their own way, beside noise."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ctr.build import build_state, open_dataset
from ctr.config import RunConfig, parse_config
from ctr.cooccurrence.links import MeetingCounts, link_of
from ctr.cooccurrence.meetings import Field, ShownValues
from ctr.cooccurrence.start import start_from_cooccurrence
from ctr.cooccurrence.vectors import linked_vectors
from ctr.embedding import make_tables
from ctr.training.state import TrainingState
from features.dataset import Dataset
from features.errors import ConfigError
from pipelines.train import train
from tests.ctr.tiny_run import outcome_of
from tests.features.small_log import prepared

KINDS, USERS, EACH = 6, 60, 8
MEANS = [4, 2, 5, 0, 3, 1]  # category i of a candidate is number 100 + MEANS[i] of the history
ID = {"encode": "vocabulary"}
SPEC = {
    "name": "renumbered",
    "source": {"tables": {t: {"path": f"{t}.parquet"} for t in ("shown", "seen")}},
    "impressions": {
        "table": "shown",
        "user": "user",
        "item": "item",
        "time": "at",
        "label": {"column": "click"},
    },
    "tables": {"kind": ID, "noise": ID, "number": ID, "colour": ID},
    "features": {"kind": {"column": "item", "table": "kind"}, "noise": {"column": "noise", "table": "noise"}},
    "domains": {
        "seen": {
            "table": "seen",
            "user": "user",
            "time": "at",
            "side": {
                "number": {"column": "number", "table": "number"},
                "colour": {"column": "colour", "table": "colour"},
            },
        }
    },
    "tokens": {"kind": ["kind"], "noise": ["noise"]},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every user has two categories, of which they were shown and have seen most things."""
    rng = np.random.default_rng(0)
    own = rng.permuted(np.tile(np.arange(KINDS), (USERS, 1)), axis=1)[:, :2]
    rows = USERS * EACH
    user = np.repeat(np.arange(USERS), EACH)

    def kinds() -> np.ndarray:
        liked = own[user, rng.integers(0, 2, rows)]
        return np.where(rng.random(rows) < 0.8, liked, rng.integers(0, KINDS, rows))

    at = 1_700_000_000 + np.arange(rows)
    shown = {
        "user": user,
        "item": kinds(),
        "noise": rng.integers(0, 5, rows),
        "click": user % 2,
        "at": at + rows,
    }
    seen = {
        "user": user,
        "number": 100 + np.array(MEANS)[kinds()],
        "colour": rng.integers(0, 4, rows),
        "at": at,
    }
    tables = {"shown": pl.DataFrame(shown), "seen": pl.DataFrame(seen)}
    return prepared(tmp_path_factory.mktemp("log"), SPEC, tables).root


def config_of(dataset: Path, run: Path, **more: object) -> RunConfig:
    embedding = {
        "dim": 8,
        "init_std": 0.3,
        "pmi_start": {"prior": 5.0, "min_gain": 0.01, "random": 0.0},
        **more,
    }
    # M = 2 groups and N = 2 queries.
    model = {"d_model": 12, "heads": 2, "layers": 1, "head_hidden": [8], "queries": {"seen": 2}}
    train = {"epochs": 1, "device": "cpu"}
    settings = {
        "dataset": str(dataset),
        "run": str(run),
        "model": model,
        "embedding": embedding,
        "train": train,
    }
    settings |= {"loader": {"batch_rows": 64}, "tracking": {"uri": None}, "optimizer": {"ema_decay": 0.9}}
    return parse_config(settings)


def fresh(config: RunConfig) -> tuple[TrainingState, Dataset]:
    data = open_dataset(config)
    return build_state(config, data.manifest, torch.device("cpu")), data


def by_value(data: Dataset, state: TrainingState, table: str) -> dict[int, torch.Tensor]:
    """The row of each value."""
    book = pl.read_parquet(data.root / "fitted" / f"{table}.parquet")
    weight = state.tables.state()[f"{table}.weight"]
    first = len(weight) - book.height
    return {value: weight[first + i] for i, value in enumerate(book["value"].to_list())}


def test_values_that_mean_the_same_start_close_and_the_others_as_they_were(
    dataset: Path, tmp_path: Path
) -> None:
    config = config_of(dataset, tmp_path)
    state, data = fresh(config)
    before = {n: t.clone() for n, t in state.tables.state().items()}
    placed = start_from_cooccurrence(state, config, data)
    assert placed is not None and placed.tables == ["kind", "number"]
    assert list(placed.links) == ["seen.number"] and placed.links["seen.number"][0] == "kind"
    kinds, numbers = by_value(data, state, "kind"), by_value(data, state, "number")
    for kind, row in kinds.items():
        near = {
            number: float(torch.cosine_similarity(row, other, dim=0)) for number, other in numbers.items()
        }
        assert max(near, key=near.get) == 100 + MEANS[kind] and max(near.values()) > 0.7
        assert float(row.norm()) == pytest.approx(0.3 * 8**0.5, rel=0.35)
    after = state.tables.state()
    for name in ("noise.weight", "colour.weight", *(n for n in before if not n.endswith("weight"))):
        assert torch.equal(before[name], after[name])
    for table in placed.tables:  # the rows of missing and of unknown values
        assert torch.equal(before[f"{table}.weight"][:2], after[f"{table}.weight"][:2])
    group = state.model.ns_tokenizer.groups[0]
    number = state.model.sequence_tokenizers.tokenizers[0].maps[0]
    assert torch.equal(group.of_candidate.weight, number.weight)
    assert state.averaged is not None
    assert all(torch.equal(state.averaged.average[n], p) for n, p in state.model.named_parameters())


def test_a_start_is_that_of_its_seed_in_all_engines(dataset: Path, tmp_path: Path) -> None:
    config = config_of(dataset, tmp_path)
    (one, data), (two, _) = fresh(config), fresh(config)
    for state in (one, two):
        start_from_cooccurrence(state, config, data)
    names = list(one.tables.state())
    assert all(torch.equal(one.tables.state()[n], two.tables.state()[n]) for n in names)
    fused, _ = fresh(config)
    rows = {n: t.rows for n, t in data.manifest.tables.items()}
    other = config.embedding.model_copy(update={"engine": "fbgemm"})
    fused.tables = make_tables(rows, other, seed=config.seed, device="cpu")
    start_from_cooccurrence(fused, config, data)
    assert all(
        torch.equal(one.tables.state()[n], fused.tables.state()[n]) for n in names if n.endswith("weight")
    )


def test_a_run_goes_on_without_a_second_start(dataset: Path, tmp_path: Path) -> None:
    whole, cut = (config_of(dataset, tmp_path / name) for name in ("whole", "cut"))
    train(whole)
    train(cut, until=3)
    train(cut)
    one, other = (outcome_of(tmp_path / name)["hashes"] for name in ("whole", "cut"))
    assert one == other


def test_what_cannot_be_is_refused(dataset: Path, tmp_path: Path) -> None:
    config = config_of(dataset, tmp_path, restart=["number"])
    with pytest.raises(ConfigError, match=r"embedding.restart draws \['number'\] anew, which would lose"):
        start_from_cooccurrence(*_swapped(config))
    config = config_of(dataset, tmp_path, pmi_start={"min_gain": 5.0})
    with pytest.raises(ConfigError, match="no field of histories that tells 5 nats"):
        start_from_cooccurrence(*_swapped(config))
    plain = config_of(dataset, tmp_path, pmi_start=None)
    assert start_from_cooccurrence(*_swapped(plain)) is None
    with pytest.raises(ConfigError, match=r"from another one or from embedding\.pmi_start; drop one"):
        parse_config({**config.model_dump(mode="json"), "init": {"run": "runs/a"}})


def _swapped(config: RunConfig) -> tuple[TrainingState, RunConfig, Dataset]:
    state, data = fresh(config)
    return state, config, data


def test_the_gain_is_that_of_its_formula_and_none_where_all_is_chance() -> None:
    rng = np.random.default_rng(1)
    value, event, half = rng.integers(0, 3, 400), rng.integers(0, 4, 400), rng.random(400) < 0.5
    row = np.arange(400)
    candidates = ShownValues({"f": "c"}, {"f": value}, half)
    sizes, first = {"c": 3, "h": 4}, {"c": 0, "h": 0}
    link = link_of(candidates, "f", Field("d.g", "h", row, event), sizes, first, prior=2.0)

    def told(one: np.ndarray, other: np.ndarray) -> float:
        n = Counter(zip(value[one].tolist(), event[one].tolist(), strict=True))
        total = sum(n.values())
        of_c, of_v = Counter(value[one].tolist()), Counter(event[one].tolist())
        sums = [
            log((n[c, v] + 2) / (of_c[c] * of_v[v] / total + 2))
            for c, v in zip(value[other].tolist(), event[other].tolist(), strict=True)
        ]
        return sum(sums) / len(sums)

    assert link.gain == pytest.approx(min(told(half, ~half), told(~half, half))) and link.gain < 0.005
    same = link_of(candidates, "f", Field("d.g", "h", row, (value + 1) % 3), sizes, first, prior=2.0)
    assert same.gain > 0.9  # log 3 without the prior


def test_a_large_matrix_gives_the_vectors_of_the_whole_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    kind = rng.integers(0, 5, 4000)
    value, event = kind * 4 + rng.integers(0, 4, 4000), kind * 3 + rng.integers(0, 3, 4000)
    candidates = ShownValues({"f": "c"}, {"f": value}, rng.random(4000) < 0.5)
    link = link_of(
        candidates,
        "f",
        Field("d.g", "h", np.arange(4000), event),
        {"c": 20, "h": 15},
        {"c": 0, "h": 0},
        prior=2.0,
    )
    found = []
    for small in (2**20, 0):
        monkeypatch.setattr("ctr.cooccurrence.vectors._SMALL", small)
        vectors = linked_vectors([link], dim=5, prior=2.0, shift=1.0, seed=0)
        found.append(vectors["c"][0] @ vectors["h"][0].T)
    np.testing.assert_allclose(*found, atol=1e-6)
    own = [found[0][c, v] for c in range(20) for v in range(15) if c // 4 == v // 3]
    other = [found[0][c, v] for c in range(20) for v in range(15) if c // 4 != v // 3]
    assert min(own) > 2 * max(other)


def test_pairs_are_counted_alike_in_an_array_and_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    value, event = rng.integers(0, 7, 300), rng.integers(0, 9, 300)
    one = MeetingCounts.of(value, event, (7, 9))
    monkeypatch.setattr("ctr.cooccurrence.links._DENSE", 0)
    two = MeetingCounts.of(value, event, (7, 9))
    assert one.code.tolist() == two.code.tolist() and one.count.tolist() == two.count.tolist()
    assert all(a < b for a, b in pairwise(one.code.tolist())) and one.total == 300
