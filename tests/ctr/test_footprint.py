"""Rows 31 and 42: what weights take is told, and refused with figures, before any of them is allocated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from ctr.build import build_model
from ctr.config import RunConfig, parse_config
from ctr.footprint import check_dense
from ctr.models.registry import model_class
from features.dataset import Dataset, Manifest
from features.errors import ConfigError
from features.memory.limit import MemoryLimit
from tests.ctr.tiny_run import settings, tiny_dataset

LIMIT = MemoryLimit(2**34, 2**34, "of this test")
VARIANTS = [
    *([f"model.kind={kind}"] for kind in ("hyformer", "longer", "two_stage")),
    ["model.kind=one_trans", "model.layers=4"],  # the last layer needs less than it is counted with
    ["model.kind=hstu", "model.action_tokens=added", "model.group_norm=true"],
    *([f"model.encoder.kind={kind}"] for kind in ("transformer", "longer", "swiglu")),
    ["model.merge_sequences=true", "model.tokenizer={kind: auto, tokens: 2}"],
    [
        "model.kind=longer",
        "model.layers=2",
        "model.longer={merge: 2, inner_layers: 1, queries: learnable, cls_tokens: 2}",
    ],
    ["model.dense_bins=4", "model.positions=6", "model.linear_shortcut=true", "model.attention_sink=true"],
    ["model.ngram={fields: [view.item]}", "model.token_filter={mode: remove, hidden: 3}"],
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def manifest(dataset: Path) -> Manifest:
    return Dataset(dataset).manifest


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctr.embedding.memory.memory_limit", lambda: LIMIT)


def config_of(dataset: Path, *overrides: str) -> RunConfig:
    return parse_config(settings(dataset, Path("run"), *overrides))


def builder(dataset: Path, manifest: Manifest, *overrides: str) -> Callable[[], nn.Module]:
    model = config_of(dataset, *overrides).model
    return partial(model_class(model.kind), manifest, model, dim=4)


@pytest.mark.parametrize("overrides", VARIANTS, ids=lambda o: " ".join(o))
def test_every_model_can_be_counted_without_being_made(
    dataset: Path, manifest: Manifest, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within some percent: copied norms go unseen."""
    build = builder(dataset, manifest, *overrides)
    made = build()
    weights = 16 * sum(p.numel() for p in made.parameters())
    for left in (int(1.1 * weights) + 4000, int(0.98 * weights)):
        limit = MemoryLimit(left, left, "of this test")
        monkeypatch.setattr("ctr.embedding.memory.memory_limit", lambda limit=limit: limit)
        if left >= weights:
            check_dense(build, what="model")
        else:
            with pytest.raises(ConfigError, match=r"must have weights that fit into the .* \(of this test\)"):
                check_dense(build, what="model")


@pytest.mark.fault(42)
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.d_model=2147483646"], r"but they are at least [\d.,]+ .B with their gradients"),
        (["model.layers=10000"], "more than 10,000 tensors"),
        (["model.layers=1000000"], "model.layers: Input should be less than or equal to 10000"),
        (["model.head_hidden=[2147483647, 2147483647]"], "at least"),
        (["model.positions=2147483647"], "at least"),
        (["model.time_buckets=2147483647"], "at least"),
        (["model.dense_bins=2147483647"], "at least"),
        (["model.default_queries=9998"], "d_model|at least"),
        (["model.tokenizer={kind: auto, tokens: 9998}"], "d_model|at least"),
        (["model.expansion=1e300"], "more than any memory|at least"),
        (["model.kind=longer", "model.longer={merge: 2147483647}"], "at least|more than any memory"),
        (
            [
                "model.kind=longer",
                "model.layers=2",
                "model.longer={queries: learnable, num_queries: 2147483647}",
            ],
            "at least",
        ),
        (["model.d_model=18446744073709551616"], "less than or equal to 2147483647"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_huge_models_are_refused_with_figures(
    dataset: Path, manifest: Manifest, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(manifest, config_of(dataset, *overrides).model, dim=4, seed=1)


def test_counting_changes_no_random_number(dataset: Path, manifest: Manifest) -> None:
    before = torch.get_rng_state()
    one = build_model(manifest, config_of(dataset).model, dim=4, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    plain = builder(dataset, manifest)()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), plain.parameters(), strict=True))


def test_a_model_that_cannot_be_counted_is_built_as_it_is() -> None:
    class Curious(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.size = int(torch.ones(1).item())  # the meta device has no values

    check_dense(Curious, what="model")
