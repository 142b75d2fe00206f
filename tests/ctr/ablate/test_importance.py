"""Permutation importance: the loss of AUC, computed by hand, of a sample that is bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ctr.ablate.importance import HeldBatches, permutation_importances, sample_batches
from ctr.ablate.permute import PermutedBatches
from ctr.build import build_state, open_dataset, scoring_loader
from ctr.metrics import MetricValue, auc
from ctr.training.scoring import score_batches
from ctr.training.state import TrainingState
from features.dataset import Dataset
from tests.ctr.dataset_fixture import Sizes, write_dataset
from tests.ctr.tiny_run import tiny_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingState, HeldBatches, Dataset]:
    """A model whose weights make its scores differ."""
    folder = tmp_path_factory.mktemp("importance")
    root = write_dataset(folder / "dataset", Sizes(users=30, requests=150), seed=1)
    config = tiny_config(root, folder / "run")
    dataset = open_dataset(config)
    state = build_state(config, dataset.manifest, CPU)
    with torch.no_grad():
        for weight in state.model.parameters():
            weight.mul_(3.0)
    return state, sample_batches(scoring_loader(config, dataset, "test"), 100_000), dataset


def measured(
    opened: tuple[TrainingState, HeldBatches, Dataset], batches: HeldBatches | None = None, seed: int = 0
) -> dict[str, MetricValue]:
    """Of the only task, on the held batches or on others."""
    state, held, dataset = opened
    rows = held if batches is None else batches
    found = permutation_importances(state, rows, dataset.manifest, bf16=False, device=CPU, seed=seed)
    (own,) = found.values()
    return own


def test_every_feature_and_domain_has_its_loss_and_interval(
    opened: tuple[TrainingState, HeldBatches, Dataset],
) -> None:
    state, batches, dataset = opened
    found = measured(opened)
    assert list(found) == [c.name for c in dataset.manifest.features] + list(dataset.manifest.domains)
    assert found == measured(opened)

    def auc_of(source: HeldBatches | PermutedBatches) -> float:
        scored = list(score_batches(state, source.iterate(0), bf16=False, device=CPU))
        label = np.concatenate([b.label.numpy() for b in batches.iterate(0)])
        value = auc(label, np.concatenate([logits for _, logits in scored]).astype(np.float64)).value
        assert value is not None
        return value

    for name in ("item", "age", "view"):
        loss = found[name].value
        assert loss == pytest.approx(auc_of(batches) - auc_of(PermutedBatches(batches, [name])), abs=1e-12)
        low, high = found[name].low, found[name].high
        assert loss is not None and low is not None and high is not None and low < loss < high
    other = measured(opened, seed=1)  # other exchanges
    assert [m.value for m in found.values()] != [m.value for m in other.values()]


def test_what_says_nothing_is_worth_nothing(opened: tuple[TrainingState, HeldBatches, Dataset]) -> None:
    """A column with one value for all rows: exchanging it changes no score."""
    _, batches, _ = opened
    same = HeldBatches(
        [
            replace(
                b, candidate_dense={**b.candidate_dense, "price": torch.ones_like(b.candidate_dense["price"])}
            )
            for b in batches.batches
        ]
    )
    found = measured(opened, same)
    assert found["price"].value == pytest.approx(0, abs=1e-12) and abs(found["item"].value or 0) > 1e-6


def test_few_users_give_no_interval(opened: tuple[TrainingState, HeldBatches, Dataset]) -> None:
    _, batches, _ = opened
    alone = HeldBatches([replace(b, user_id=torch.zeros_like(b.user_id)) for b in batches.batches])
    found = measured(opened, alone)["item"]
    assert found.value is not None and found.low is None and "too few to resample" in str(found.reason)


def test_a_sample_is_bounded_and_spread_over_the_part(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "dataset", Sizes(users=30, requests=300), seed=1)
    config = tiny_config(root, tmp_path / "run")
    loader = scoring_loader(config, open_dataset(config), "test")
    every = list(loader.iterate(0))
    held = sample_batches(loader, 120).batches
    assert sum(b.num_rows for b in held) <= 120 + max(b.num_rows for b in every)
    times = [int(b.time.min()) for b in held]
    assert len(held) == 5 and times == sorted(times)
    assert times[0] == int(every[0].time.min()) and times[-1] > int(every[len(every) // 2].time.min())
    assert len(sample_batches(loader, 1).batches) == 1
    assert len(sample_batches(loader, 10**9).batches) == len(every)
